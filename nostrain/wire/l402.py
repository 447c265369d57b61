"""L402 headers (the protocol formerly called LSAT).

    WWW-Authenticate: L402 macaroon="…", invoice="…"              what deployed clients read
    WWW-Authenticate: L402 version="0", token="…", invoice="…"    the newer spelling of the same
    Authorization: L402 <macaroon>:<preimage>                     or `LSAT`, the older name

Macaroons travel in base64, preimages in hex.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from typing import Final

import msgspec

from nostrain.crypto.macaroon import Identifier, Macaroon, decode_untrusted, encode, parse_identifier_untrusted
from nostrain.errors import RemoteProtocolError

MAX_HEADER: Final = 8 * 1024
"""Characters of a header that are looked at."""

SCHEMES: Final = ("l402", "lsat")

_PREIMAGE: Final = re.compile(r"[0-9a-fA-F]{64}")
_SCHEME: Final = re.compile(r"[ \t,]*([A-Za-z0-9!#$%&'*+.^_`|~-]+)(?:[ \t]+|[ \t]*(?:,|$))")
_PARAMETER: Final = re.compile(r"[ \t,]*([A-Za-z0-9_-]+)[ \t]*=[ \t]*(?:\"([^\"\\]*)\"|([A-Za-z0-9+/_=.:~-]+))[ \t]*(?=,|$)")


class Challenge(msgspec.Struct, frozen=True):
    """What a server asks for: pay `invoice` (BOLT 11), then show the macaroon with the preimage. `text` is the macaroon as it came."""

    macaroon: Macaroon
    identifier: Identifier
    text: str
    invoice: str


class Credentials(msgspec.Struct, frozen=True):
    """What a client shows. Neither the macaroon's chain nor the preimage is verified yet."""

    macaroon: Macaroon
    identifier: Identifier
    preimage: bytes


def encode_text(macaroon: Macaroon) -> str:
    """The macaroon in standard base64, as headers carry it."""
    return base64.b64encode(encode(macaroon)).decode()


def format_challenges(macaroon: Macaroon, invoice: str) -> tuple[str, str]:
    """The two values of `WWW-Authenticate`, the deployed spelling first."""
    text = encode_text(macaroon)
    return f'L402 macaroon="{text}", invoice="{invoice}"', f'L402 version="0", token="{text}", invoice="{invoice}"'


def format_authorization(text: str, preimage: str) -> str:
    """The value of `Authorization`; `text` is the macaroon in base64, `preimage` 64 hex."""
    return f"L402 {text}:{preimage}"


def is_l402(header: str) -> bool:
    """Whether an `Authorization` value means us; of what else it says nothing is known."""
    return header.strip(" \t").partition(" ")[0].lower() in SCHEMES


def parse_authorization_untrusted(header: str) -> Credentials:
    """The credentials of an `Authorization: L402|LSAT <macaroon>:<preimage>` value. Exactly one macaroon. Raises RemoteProtocolError."""
    if len(header) > MAX_HEADER:
        raise _fault(f"longer than {MAX_HEADER} characters")
    scheme, _, rest = header.strip(" \t").partition(" ")
    if scheme.lower() not in SCHEMES:
        raise _fault("not of the scheme L402 or LSAT")
    text, separator, preimage = rest.strip(" \t").partition(":")
    if not separator or not _PREIMAGE.fullmatch(preimage):
        raise _fault("not of the form <macaroon>:<64 hex preimage>")
    macaroon = parse_token_untrusted(text)
    return Credentials(macaroon, parse_identifier_untrusted(macaroon.identifier), bytes.fromhex(preimage))


def parse_challenges_untrusted(headers: Sequence[str]) -> Challenge:
    """The first L402 challenge among the `WWW-Authenticate` values of a response, in either spelling. Raises RemoteProtocolError."""
    if sum(map(len, headers)) > MAX_HEADER:
        raise _fault(f"longer than {MAX_HEADER} characters")
    for header in headers:
        for scheme, parameters in _challenges(header):
            text, invoice = parameters.get("macaroon", parameters.get("token")), parameters.get("invoice")
            if scheme in SCHEMES and text and invoice and parameters.get("version", "0") == "0":
                macaroon = parse_token_untrusted(text)
                return Challenge(macaroon, parse_identifier_untrusted(macaroon.identifier), text, invoice)
    raise _fault("no L402 challenge with a macaroon and an invoice")


def _challenges(header: str) -> list[tuple[str, dict[str, str]]]:
    """Every (scheme in lower case, parameters) of one header value; servers and proxies may join several with commas (RFC 9110, 11.6.1)."""
    found: list[tuple[str, dict[str, str]]] = []
    at, end = 0, len(header.rstrip(" \t,"))
    while at < end:
        if found and (parameter := _PARAMETER.match(header, at)):
            name, quoted, plain = parameter.groups()
            if name.lower() in found[-1][1]:
                raise _fault(f"parameter '{name[:20]}' is given twice")
            found[-1][1][name.lower()] = plain if quoted is None else quoted
            at = parameter.end()
        elif scheme := _SCHEME.match(header, at):
            found.append((scheme[1].lower(), {}))
            at = scheme.end()
        else:
            raise _fault("WWW-Authenticate is not a list of challenges")
    return found


def parse_token_untrusted(text: str) -> Macaroon:
    """A macaroon from base64 in either alphabet, padded or not; nothing is verified. Raises RemoteProtocolError."""
    standard = text.translate(str.maketrans("-_", "+/")).rstrip("=")
    try:
        data = base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise _fault("the macaroon is not base64") from None
    return decode_untrusted(data)


def _fault(reason: str) -> RemoteProtocolError:
    return RemoteProtocolError("L402", reason)
