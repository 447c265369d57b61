"""What the caveats of our L402 tokens mean. A caveat is `key=value`; whoever holds a token may add more, and they can only narrow it.

Two kinds of token are sold. A *ticket* is one worker's place in one round, and later its upload: run, round, worker, size, expires; the worker
narrows it to its delta (`sha256`, `method`) before it shows it with the bytes. A *toll* is one request: method, path, size, expires, and
`sha256` where a blob is meant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from nostrain.errors import RemoteProtocolError
from nostrain.units import is_hex32

_DIGESTS: Final = frozenset({"run", "round", "worker", "sha256"})
_WORDS: Final = frozenset({"method", "path"})
_BOUNDS: Final = frozenset({"size", "expires"})
_LONGEST_WORD: Final = 128
_LARGEST_NUMBER: Final = 1 << 53


@dataclass(frozen=True, slots=True)
class Grant:
    """What a ticket's caveats, taken together, allow: one worker's upload of `size` bytes in one round, until `expires` (unix seconds).

    `run` and `round` are the ids of the manifest and of the announcement, in hex as is `worker`. `sha256` and `method` are None until a holder
    has narrowed the ticket to one blob and one HTTP method.
    """

    run: str
    round: str
    worker: str
    size: int
    expires: int
    sha256: str | None = None
    method: str | None = None

    def caveats(self) -> tuple[bytes, ...]:
        """One caveat a field: what is minted, and what narrows it."""
        return _written(
            run=self.run,
            round=self.round,
            worker=self.worker,
            size=self.size,
            expires=self.expires,
            sha256=self.sha256,
            method=self.method,
        )


@dataclass(frozen=True, slots=True)
class Toll:
    """What a toll's caveats allow: one request of `method` on `path`, for the blob `sha256` if one is meant, of `size` bytes, until `expires`."""

    method: str
    path: str
    sha256: str | None
    size: int
    expires: int

    def caveats(self) -> tuple[bytes, ...]:
        """One caveat a field: what is minted."""
        return _written(method=self.method, path=self.path, sha256=self.sha256, size=self.size, expires=self.expires)


def narrowed_to(sha256: str, method: str) -> tuple[bytes, ...]:
    """The caveats that narrow a ticket to one blob and one method."""
    return _written(sha256=sha256, method=method)


def read_grant_untrusted(caveats: Sequence[bytes]) -> Grant:
    """What a ticket's caveats allow. Each may be repeated, and then only narrow: the same name, or a smaller bound.

    Raises RemoteProtocolError: a caveat that we do not know (what we do not understand we cannot enforce), one that widens, one missing.
    """
    names, bounds = _read(caveats, {"run", "round", "worker", "size", "expires"}, {"sha256", "method"})
    return Grant(names["run"], names["round"], names["worker"], bounds["size"], bounds["expires"], names.get("sha256"), names.get("method"))


def is_grant(caveats: Sequence[bytes]) -> bool:
    """Whether these are a ticket's caveats; those of other programs' tokens, which may be anything, are not."""
    try:
        read_grant_untrusted(caveats)
    except RemoteProtocolError:
        return False
    return True


def read_toll_untrusted(caveats: Sequence[bytes]) -> Toll:
    """What a toll's caveats allow, as `read_grant_untrusted`. Raises RemoteProtocolError."""
    names, bounds = _read(caveats, {"method", "path", "size", "expires"}, {"sha256"})
    return Toll(names["method"], names["path"], names.get("sha256"), bounds["size"], bounds["expires"])


def _written(**values: str | int | None) -> tuple[bytes, ...]:
    return tuple(f"{name}={value}".encode() for name, value in values.items() if value is not None)


def _read(caveats: Sequence[bytes], needed: set[str], allowed: set[str]) -> tuple[dict[str, str], dict[str, int]]:
    """Names and bounds, each as narrow as its narrowest caveat."""
    names: dict[str, str] = {}
    bounds: dict[str, int] = {}
    for caveat in caveats:
        key, value = _split(caveat)
        if key not in needed | allowed:
            raise _fault("a caveat that is not known here")
        if key in _BOUNDS:
            bound = _number(key, value)
            if bound > bounds.get(key, bound):
                raise _fault(f"caveat '{key}' widens an earlier one")
            bounds[key] = bound
            continue
        if key in _DIGESTS and not is_hex32(value):
            raise _fault(f"caveat '{key}' is not 64 lowercase hex characters")
        if key in _WORDS and not (0 < len(value) <= _LONGEST_WORD and value.isprintable()):
            raise _fault(f"caveat '{key}' is not a short word")
        if names.setdefault(key, value) != value:
            raise _fault(f"caveat '{key}' is given twice and differs")
    missing = sorted(needed - names.keys() - bounds.keys())
    if missing:
        raise _fault(f"no caveat '{missing[0]}'")
    return names, bounds


def _split(caveat: bytes) -> tuple[str, str]:
    try:
        key, separator, value = caveat.decode("ascii").partition("=")
    except UnicodeDecodeError:
        raise _fault("a caveat is not ASCII") from None
    if not separator:
        raise _fault("a caveat is not of the form key=value")
    return key, value


def _number(key: str, value: str) -> int:
    """A decimal in its only spelling."""
    if not (value.isdecimal() and len(value) <= 16 and str(int(value)) == value and int(value) <= _LARGEST_NUMBER):
        raise _fault(f"caveat '{key}' is not a plain decimal number")
    return int(value)


def _fault(reason: str) -> RemoteProtocolError:
    return RemoteProtocolError("macaroon", reason)
