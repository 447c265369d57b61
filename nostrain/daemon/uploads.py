"""What our blob server takes from others, and what becomes of it: the daemon knows who is pinned in which round."""

from __future__ import annotations

from collections.abc import Callable

from nostrain.blobs.incoming import Incoming
from nostrain.blobs.store import LOCAL, BlobStore
from nostrain.core.escrow.ticket import charged
from nostrain.core.rounds.scoring import pinned
from nostrain.core.rows import NodeState, Round, Run
from nostrain.units import Digest, EventId, Pubkey


class RunStore(BlobStore):
    """The store of a node in a run. What a participant uploads becomes the node's own: its uploader cannot take it out of an open round."""

    takes_part: Callable[[Pubkey], bool] = staticmethod(lambda _: True)
    """Whether a key is a participant; everybody, unless strangers may upload for money."""

    async def commit(self, incoming: Incoming, digest: Digest, owner: Pubkey = LOCAL) -> bool:
        """As `BlobStore.commit`."""
        new = await super().commit(incoming, digest, owner)
        if owner != LOCAL and self.takes_part(owner):
            await self.claim(digest, LOCAL)
        return new


class RunUploads:
    """Upload policy (`blobs.policy.UploadPolicy`): ourselves; the coordinator whom we follow; workers, each the one delta of an open round.

    The receipt pins salted digests, so before the reveal nobody knows which blob was committed to; but it is one. The first digest that a
    worker asks for in a round is therefore the only one, and after its reveal that one. Where the round's ticket must be shown (`ticketed`),
    the ticket's first use is that digest, for ever; where there is none, it is forgotten at a restart, which gives the worker one more.
    """

    def __init__(self, me: Pubkey, coordinator: Pubkey | None, *, sells: bool = False) -> None:
        """`coordinator`: the only one whose runs we join, as configured; trusted before its run is known. `sells`: whether everybody else may
        upload for money.
        """
        self._me, self._coordinator, self._sells = me, coordinator, sells
        self._promised: dict[tuple[EventId, Pubkey], Digest] = {}
        self.state: Callable[[], NodeState] = NodeState
        """Gives the node's committed state."""

    def allow(self, pubkey: Pubkey, digest: Digest, size: int) -> str | None:
        """None, or the reason for the refusal."""
        return None if self._sells else self.uninvited(pubkey, digest, size)

    def uninvited(self, pubkey: Pubkey, digest: Digest, size: int) -> str | None:
        """Why the upload has nothing to do with our run; None when it has, and is not paid by the megabyte."""
        if pubkey in (self._me, self._coordinator):
            return None
        rows = self.state().rows
        run = rows.get("run")
        if not isinstance(run, Run):
            return "this server follows no run yet"
        if pubkey == run.coordinator:
            return None
        round_ = rows.get(f"round/{run.open}")
        if not isinstance(round_, Round):
            return "no round of the run is open"
        if size > run.manifest.max_delta_bytes:
            return f"{size} bytes, {run.manifest.max_delta_bytes} is the limit of the run"
        if pubkey not in self._entitled(run, round_):
            return "the receipt of the open round pins no commitment of yours"
        return self._bind(round_, pubkey, digest)

    def takes_part(self, pubkey: Pubkey) -> bool:
        """Whether what `pubkey` uploads is the run's business rather than its own."""
        run = self.state().rows.get("run")
        if pubkey in (self._me, self._coordinator):
            return True
        if not isinstance(run, Run):
            return not self._sells
        round_ = self.state().rows.get(f"round/{run.open}")
        return not self._sells or pubkey == run.coordinator or (isinstance(round_, Round) and pubkey in round_.announcement.workers)

    def ticketed(self, pubkey: Pubkey) -> EventId | None:
        """The round whose ticket `pubkey` has to show with its upload: the open one, if we sold tickets for it and it is a worker's upload."""
        rows = self.state().rows
        run = rows.get("run")
        if not isinstance(run, Run) or run.coordinator != self._me or pubkey in (self._me, self._coordinator) or not charged(run.manifest):
            return None
        round_ = rows.get(f"round/{run.open}")
        return round_.id if isinstance(round_, Round) and pubkey in round_.announcement.workers else None

    def _entitled(self, run: Run, round_: Round) -> set[Pubkey]:
        """Who may upload: the pinned. A server that is not the coordinator's may see the receipt later than its uploader does."""
        if round_.receipt is None and run.coordinator != self._me:
            return {author for author, _, _ in round_.commitments.values()}
        return set(pinned(round_))

    def _bind(self, round_: Round, pubkey: Pubkey, digest: Digest) -> str | None:
        for known in [key for key in self._promised if key[0] != round_.id]:
            del self._promised[known]
        reveal = round_.reveals.get(pubkey)
        if reveal is None and self.ticketed(pubkey) is not None:
            return None
        promised = reveal.blob.sha256 if reveal is not None else self._promised.setdefault((round_.id, pubkey), digest)
        return None if digest == promised else f"you committed to one blob in this round, and it is {promised[:8]}"
