"""URLs that others hand us: which may be asked at all."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

import httpx

from nostrain.errors import RemoteProtocolError
from nostrain.units import Digest

_LONGEST: Final = 2048
_EXTENSION: Final = re.compile(r"(\.[A-Za-z0-9]{1,16})?")


class Source(NamedTuple):
    """Where a blob may be fetched. `server`: the base URL of the Blossom server that answers for what it serves there; None if it is no such URL."""

    url: httpx.URL
    server: str | None


def source_of(url: httpx.URL, digest: Digest) -> Source:
    """The blob's source at `url`: a Blossom server's if the URL ends with the digest, with or without an extension."""
    base, found, extension = str(url).rpartition(f"/{digest}")
    return Source(url, base if found and _EXTENSION.fullmatch(extension) else None)


class PaymentRequired(RemoteProtocolError):
    """A server wants money for `url`; `headers` are those of its 402."""

    def __init__(self, url: httpx.URL, response: httpx.Response) -> None:
        reason = printable(response.headers.get("x-reason", ""))
        super().__init__("blob", f"refused with HTTP 402 {reason}".rstrip(), whose=url.host)
        self.url = str(url)
        self.headers = tuple(response.headers.multi_items())


def parse_url_untrusted(text: str) -> httpx.URL:
    """An absolute http(s) URL with a host and without credentials. Raises RemoteProtocolError."""
    if len(text) > _LONGEST:
        raise RemoteProtocolError("blob URL", f"longer than {_LONGEST} characters")
    try:
        url = httpx.URL(text)
        host, port, _ = url.raw_host.decode("ascii"), url.port, url.host  # as it is shown: raises where IDNA knows no such name
    except (httpx.InvalidURL, ValueError) as error:
        raise RemoteProtocolError("blob URL", "not a URL") from error
    if url.scheme not in ("http", "https") or url.userinfo or not (port is None or 0 < port < 65536):
        raise RemoteProtocolError("blob URL", "not a plain http or https URL")
    if ":" not in host and not (len(host) <= 253 and all(0 < len(label) < 64 for label in host.removesuffix(".").split("."))):
        raise RemoteProtocolError("blob URL", "not a host name")
    return url


def redirect_untrusted(url: httpx.URL, location: str, digest: Digest) -> httpx.URL:
    """Where a redirect leads. BUD-01: it must name the same blob. Raises RemoteProtocolError."""
    try:
        target = parse_url_untrusted(str(url.join(location)))
    except httpx.InvalidURL as error:
        raise RemoteProtocolError("blob redirect", "not a URL") from error
    if digest not in target.path or (url.scheme == "https" and target.scheme != "https"):
        raise RemoteProtocolError("blob redirect", "leads to another blob or off https")
    return target


def printable(text: str) -> str:
    """`text` from a peer, short and fit for one line of a log."""
    return "".join(char if char.isprintable() else "?" for char in text[:120])
