"""Content-addressed files (Blossom)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from nostrain.units import Digest, EventId, Pubkey


class Blobs(Protocol):
    """Stores and fetches files by SHA-256. A URL is a hint, never an authority: the bytes are checked against the digest."""

    async def put(self, path: Path, digest: Digest, servers: Sequence[str] = (), ticket: EventId | None = None) -> tuple[str, ...]:
        """Upload the file at `path`, whose SHA-256 is `digest`, to the configured servers and to `servers` (base URLs, say of a run's manifest);
        the URLs that now serve it. `ticket` names the round whose ticket authorizes the upload at the server that sold it.

        Idempotent. Raises Unavailable when no server took it, RemoteProtocolError when every server refused it for good (401, 402, 403, 409, 413).
        """
        ...

    async def get(self, digest: Digest, urls: Sequence[str], max_size: int, author: Pubkey | None = None) -> Path:
        """A local, read-only file whose SHA-256 is `digest` (a local copy is used if there is one). `author`: who published it, and may have
        said where else it is.

        Never writes more than `max_size` bytes; nothing unverified is left under its final name.
        Raises Unavailable when no source answered, RemoteProtocolError when what they serve is not that blob or is too large.
        """
        ...

    async def discard(self, digest: Digest, owners: Sequence[Pubkey] = ()) -> None:
        """Give up our own copy, and what `owners` have stored with us under that name: the file goes unless somebody else has stored it too.

        Idempotent; other servers keep what they have. Raises Unavailable: nothing was lost, try again.
        """
        ...


class ServerLists(Protocol):
    """Tells where people keep their blobs (BUD-03)."""

    async def servers(self, author: Pubkey) -> tuple[str, ...]:
        """A few texts that `author` says are base URLs of its servers, perhaps none. They are a stranger's. Raises nothing."""
        ...
