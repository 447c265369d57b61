"""What every Blossom endpoint asks first: who is it, what do they mean, and how is a refusal told."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import Request

from nostrain.blobs.auth import check_token, parse_header_untrusted
from nostrain.blobs.index import Upload
from nostrain.errors import RemoteProtocolError
from nostrain.ports.clock import Clock
from nostrain.protocol.event import Event
from nostrain.units import Digest, UnixTime


def refusal(status: int, reason: str) -> HTTPException:
    """The HTTP error whose `X-Reason` is `reason`, reduced to what a header may carry."""
    printable = "".join(char if " " <= char <= "~" else "?" for char in reason[:300])
    return HTTPException(status, printable, headers={"X-Reason": printable})


class Gate:
    """The server's own name and clock, against which tokens are checked."""

    def __init__(self, clock: Clock, public_url: str | None) -> None:
        """`public_url`: how the world reaches this server; None when that is the address it is bound to."""
        self._clock = clock
        self._public_url = public_url.rstrip("/") if public_url else None

    def now(self) -> UnixTime:
        """The server's time."""
        return self._clock.now()

    def base(self, request: Request) -> str:
        """The URL that blobs are under, without the final slash. Never taken from a header of the request."""
        if self._public_url is not None:
            return self._public_url
        host, port = request.scope["server"]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def authorize(self, request: Request, verb: str, digest: Digest | None = None) -> Event:
        """The verified token of the request, good for `verb` on `digest`. Raises HTTPException 401."""
        header = request.headers.get("authorization")
        if header is None:
            raise refusal(401, f"authorization: a token for '{verb}' is required")
        try:
            event = parse_header_untrusted(header)
            host = urlsplit(self.base(request)).hostname or ""
            check_token(event, verb=verb, digest=digest, host=host, now=self._clock.now())
        except RemoteProtocolError as error:
            raise refusal(401, str(error)) from error
        return event

    def descriptor(self, request: Request, upload: Upload) -> dict[str, Any]:
        """BUD-02's description of a stored blob."""
        return {
            "url": f"{self.base(request)}/{upload.digest}.bin",
            "sha256": upload.digest,
            "size": upload.size,
            "type": "application/octet-stream",
            "uploaded": upload.uploaded,
        }
