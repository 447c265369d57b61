"""What every Blossom endpoint asks first: who is it, what do they mean, and how is a refusal told."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import Request

from nostrain.blobs.auth import IDENTITY, check_token, parse_header_untrusted
from nostrain.blobs.index import Upload
from nostrain.errors import RemoteProtocolError
from nostrain.ports.clock import Clock
from nostrain.ports.tolls import Passage, Refusal, Shown, Tolls, Use
from nostrain.protocol.event import Event
from nostrain.units import Digest, UnixTime


class Refused(HTTPException):
    """An HTTP error whose headers may repeat: `pairs` are its own beside `X-Reason`."""

    def __init__(self, status: int, reason: str, pairs: tuple[tuple[str, str], ...] = ()) -> None:
        self.pairs = pairs
        super().__init__(status, reason, headers={"X-Reason": reason})


def refusal(status: int, reason: str, pairs: tuple[tuple[str, str], ...] = ()) -> Refused:
    """The HTTP error whose `X-Reason` is `reason`, reduced to what a header may carry."""
    return Refused(status, "".join(char if " " <= char <= "~" else "?" for char in reason[:300]), pairs)


class Gate:
    """The server's own name and clock, against which tokens are checked, and who collects payments."""

    def __init__(self, clock: Clock, public_url: str | None, tolls: Tolls) -> None:
        """`public_url`: how the world reaches this server; None when that is the address it is bound to."""
        self._clock, self._tolls = clock, tolls
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
        header = request.headers.get(IDENTITY, request.headers.get("authorization"))
        if header is None:
            raise refusal(401, f"authorization: a token for '{verb}' is required")
        try:
            event = parse_header_untrusted(header)
            check_token(event, verb=verb, digest=digest, hosts=self._hosts(request), now=self._clock.now())
        except RemoteProtocolError as error:
            raise refusal(401, str(error)) from error
        return event

    def _hosts(self, request: Request) -> frozenset[str]:
        """What this server is called: in its public URL, and at the address that was connected to."""
        return frozenset({urlsplit(self.base(request)).hostname or "", request.scope["server"][0]})

    async def admit(self, request: Request, use: Use) -> Passage:
        """The way in, for what the request shows as payment; `finish` it in any case. Raises HTTPException, e.g. 402."""
        authorizations = request.headers.getlist("authorization")
        paying = [one for one in authorizations if one.strip()[:6].lower() != "nostr "]
        proofs = request.headers.getlist("x-lightning")
        if len(authorizations) > 1 or len(proofs) > 1:
            raise refusal(400, "Authorization, X-Lightning: at most one of each")
        found = await self._tolls.admit(use, Shown(next(iter(paying), None), next(iter(proofs), None)))
        if isinstance(found, Refusal):
            raise refusal(found.status, found.reason, found.headers)
        return found

    def descriptor(self, request: Request, upload: Upload) -> dict[str, Any]:
        """BUD-02's description of a stored blob."""
        return {
            "url": f"{self.base(request)}/{upload.digest}.bin",
            "sha256": upload.digest,
            "size": upload.size,
            "type": "application/octet-stream",
            "uploaded": upload.uploaded,
        }
