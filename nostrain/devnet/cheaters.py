"""Participants that cheat, for the devnet and for simulations: what they do is known, and so is what it must earn them.

A cheat is an effect runner: it stands between the honest machines and the honest `perform`, and does something else with the few effects
that its cheat is about. The daemon contains none of it; `nostrain.devnet.cheater` composes an ordinary node around one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from hashlib import sha256
from pathlib import Path
from typing import Final, Literal, get_args

import msgspec
import trio

from nostrain.core.effects import (
    Compute,
    Computed,
    DrawLocks,
    Effect,
    LocksDrawn,
    LocksOpened,
    OpenLocks,
    Outcome,
    Send,
    Sign,
    Upload,
)
from nostrain.crypto.instances import expand_instance, instance_digest
from nostrain.crypto.lock import LevelLock as Drawn
from nostrain.daemon.ports import Ports
from nostrain.daemon.runners import Perform, perform
from nostrain.daemon.runners.locks import context
from nostrain.errors import ConfigError, RemoteProtocolError, Unavailable
from nostrain.protocol.event import Filter
from nostrain.protocol.jobs import TrainJob, TrainResult
from nostrain.protocol.manifest import BlobRef
from nostrain.protocol.messages import Commitment, LevelLock, Message, Reveal
from nostrain.units import Digest, EventId
from nostrain.wire import kinds
from nostrain.wire.messages import read_message_untrusted

Cheat = Literal["noise", "copy-digest", "copy-previous", "twin", "no-reveal", "bad-payer", "silent-validator"]
CHEATS: Final[tuple[Cheat, ...]] = get_args(Cheat)
WORKERS: Final[dict[Cheat, int]] = {"noise": 1, "copy-digest": 1, "copy-previous": 1, "twin": 2, "no-reveal": 1}
"""Cheats of workers, and how many workers each takes."""
USELESS: Final = ("noise", "copy-previous")
"""Cheats whose deltas are scored with the others': the honest must outnumber them, or their median is no honest gain (design section 12)."""

Forge = Callable[[TrainJob, bytes], bytes]
"""(job, 32 random bytes) → a well-formed delta that nobody trained."""

POLL_S: Final = 0.2
AGAIN_S: Final = 1.0


def parse_cheats(text: str) -> tuple[Cheat, ...]:
    """Names separated by commas, each once. Raises ConfigError."""
    found: list[Cheat] = []
    for name in filter(None, (part.strip() for part in text.split(","))):
        known = next((cheat for cheat in CHEATS if cheat == name), None)
        if known is None or known in found:
            reason = "named twice" if known in found else "no such cheat"
            raise ConfigError("--cheaters", name, reason, f"Choose from {','.join(CHEATS)}")
        found.append(known)
    return tuple(found)


def runner(cheat: Cheat, forge: Forge, shared: Path, honest_rounds: int = 0) -> Perform:
    """The effect runner of one cheater. Twins find each other in the folder `shared`; a payer is honest for `honest_rounds`."""
    match cheat:
        case "noise":
            return Noise(forge)
        case "copy-digest":
            return CopyDigest(forge)
        case "copy-previous":
            return CopyPrevious(forge)
        case "twin":
            return Twin(shared)
        case "no-reveal":
            return NoReveal()
        case "bad-payer":
            return BadPayer(honest_rounds=honest_rounds)
        case "silent-validator":
            return SilentValidator()


class Noise:
    """Publishes a well-formed delta of random values instead of training."""

    def __init__(self, forge: Forge) -> None:
        self._forge = forge

    async def __call__(self, effect: Effect, ports: Ports) -> Outcome:
        """As `perform`."""
        if isinstance(effect, Compute) and isinstance(effect.job, TrainJob):
            return await hand_in(effect.job, self._forge(effect.job, ports.entropy.draw(32)), ports)
        return await perform(effect, ports)


class CopyDigest:
    """Commits to another worker's commitment digest, as read from the relays, and reveals what that worker reveals.

    A commitment binds its author, so the copied one opens to nothing: nobody takes the reveal.
    """

    def __init__(self, forge: Forge) -> None:
        self._forge = forge
        self._copied: dict[EventId, Message] = {}
        """The victim's commitment, by announcement."""
        self._shown: dict[EventId, Reveal] = {}

    async def __call__(self, effect: Effect, ports: Ports) -> Outcome:
        """As `perform`."""
        match effect:
            case Compute(job=TrainJob() as job):
                return await hand_in(job, self._forge(job, ports.entropy.draw(32)), ports)
            case Sign(body=Commitment(announcement=announcement) as body):
                copied = await first_of_another(ports, Commitment, kinds.COMMITMENT, announcement)
                self._copied[announcement], victim = copied, copied.body
                assert isinstance(victim, Commitment)
                effect = msgspec.structs.replace(effect, body=msgspec.structs.replace(body, commitment=victim.commitment))
            case Upload(owner=owner) if (announcement := EventId(owner.removeprefix("work/"))) in self._copied:
                author = self._copied[announcement].author
                shown = (await first_of_another(ports, Reveal, kinds.REVEAL, announcement, author)).body
                assert isinstance(shown, Reveal)
                self._shown[announcement] = shown
            case Sign(body=Reveal(announcement=announcement) as mine) if announcement in self._shown:
                theirs = self._shown[announcement]
                effect = msgspec.structs.replace(effect, body=msgspec.structs.replace(mine, salt=theirs.salt, blob=theirs.blob))
            case _:
                pass
        return await perform(effect, ports)


class CopyPrevious:
    """Hands in the delta that another worker revealed in an earlier round. In the first round there is none: then it is noise."""

    def __init__(self, forge: Forge) -> None:
        self._forge = forge

    async def __call__(self, effect: Effect, ports: Ports) -> Outcome:
        """As `perform`."""
        if not isinstance(effect, Compute) or not isinstance(job := effect.job, TrainJob):
            return await perform(effect, ports)
        if job.steps_done == 0:
            return await hand_in(job, self._forge(job, ports.entropy.draw(32)), ports)
        round_before = job.steps_done // job.training.inner_steps
        while True:
            said = await first_of_another(ports, Reveal, kinds.REVEAL, number=round_before)
            assert isinstance(said.body, Reveal)
            blob = said.body.blob
            try:
                return await hand_in(job, (await ports.blobs.get(blob.sha256, blob.urls, blob.size)).read_bytes(), ports)
            except (Unavailable, RemoteProtocolError):
                await trio.sleep(AGAIN_S)


class Twin:
    """Two workers with one engine: whoever comes first in a round trains, the other hands in the same delta under its own name.

    Nobody else can have the same indices, so neither is paid, in any round. Deltas that share between `max_overlap_ppm` and
    `SAME_PPM` of their indices are refused from `plausibility_from_round` on only: before it, honest ones look alike too.
    """

    def __init__(self, shared: Path) -> None:
        self._shared = shared

    async def __call__(self, effect: Effect, ports: Ports) -> Outcome:
        """As `perform`."""
        if not isinstance(effect, Compute) or not isinstance(job := effect.job, TrainJob):
            return await perform(effect, ports)
        claim = self._shared / Path(job.delta_out).stem
        result = claim / "delta"
        try:
            claim.mkdir(parents=True)
        except FileExistsError:
            while not result.exists():  # noqa: ASYNC110 - two processes, and a file is all that they share
                await trio.sleep(POLL_S)
            return await hand_in(job, result.read_bytes(), ports)
        outcome = await perform(effect, ports)
        await ports.offload(lambda: write_whole(result, Path(job.delta_out).read_bytes()))
        return outcome


class NoReveal:
    """Buys its ticket, is locked, commits, and never shows a byte. It does not train either: what for?"""

    async def __call__(self, effect: Effect, ports: Ports) -> Outcome:
        """As `perform`; an upload takes until it is withdrawn."""
        if isinstance(effect, Compute) and isinstance(effect.job, TrainJob):
            return await hand_in(effect.job, ports.entropy.draw(64), ports)
        if isinstance(effect, Upload):
            await trio.sleep_forever()
        return await perform(effect, ports)


class SilentValidator:
    """Announces its thermometers, acknowledges the receipt, so that everybody waits for it, and says nothing more."""

    SAYS: Final = frozenset({kinds.ENROLMENT, kinds.ORACLE_ANNOUNCEMENTS, kinds.ACKNOWLEDGEMENT})

    async def __call__(self, effect: Effect, ports: Ports) -> Outcome:
        """As `perform`; what it does not say is never sent."""
        if isinstance(effect, Send) and effect.event.kind not in self.SAYS:
            await trio.sleep_forever()
        return await perform(effect, ports)


class BadPayer:
    """Makes one instance of each level's cut-and-choose false, in as many shares as it takes that the level never opens.

    Its digests are those of the false locks. If the payee chooses a false one, everything that it can check is right; if not, that
    instance has to be opened, and is not what its seed gives.
    """

    def __init__(self, levels: Collection[int] | None = None, honest_rounds: int = 0) -> None:
        """`levels` (from 1 on) are those in which it cheats, all of them if None. Of the rounds that it sees, the first `honest_rounds` are
        honest: once it has cheated, nobody works for it any more."""
        self._levels, self._honest_rounds = levels, honest_rounds
        self._rounds: list[EventId] = []

    async def __call__(self, effect: Effect, ports: Ports) -> Outcome:
        """As `perform`."""
        outcome = await perform(effect, ports)
        if isinstance(effect, DrawLocks) and isinstance(outcome, LocksDrawn):
            false = {level: (self.bad_index(effect, level), instance_digest(self.false_lock(effect, level))) for level in self._of(effect)}
            return LocksDrawn(tuple(swapped(digests, *false.get(at, (-1, ""))) for at, digests in enumerate(outcome.instances, start=1)))
        if isinstance(effect, OpenLocks) and isinstance(outcome, LocksOpened):
            locks = list(outcome.locks)
            for level in self._of(effect):
                if effect.chosen[level - 1] == self.bad_index(effect, level):
                    false_ = self.false_lock(effect, level)
                    locks[level - 1] = LevelLock(false_.payment_hash, false_.ephemeral, false_.feldman, false_.shares)
            return LocksOpened(outcome.seeds, tuple(locks))
        return outcome

    def _of(self, effect: DrawLocks | OpenLocks) -> list[int]:
        if effect.terms.announcement not in self._rounds:
            self._rounds.append(effect.terms.announcement)
        if self._rounds.index(effect.terms.announcement) < self._honest_rounds:
            return []
        every = range(1, len(effect.seeds) + 1)
        return [level for level in every if self._levels is None or level in self._levels]

    def bad_index(self, effect: DrawLocks | OpenLocks, level: int) -> int:
        """Which instance is false: fixed by the level's seed, so that it stays the same after a restart."""
        return int(effect.seeds[level - 1][:8], 16) % effect.terms.instances

    def false_lock(self, effect: DrawLocks | OpenLocks, level: int) -> Drawn:
        """That instance, with a bit of all shares but t−1 turned: they do not lie on the committed polynomial any more."""
        terms, seed = effect.terms, bytes.fromhex(effect.seeds[level - 1])
        drawn = expand_instance(seed, self.bad_index(effect, level), context(terms, level), terms.threshold).public
        kept = terms.threshold - 1
        shares = [(j, text if at < kept else f"{int(text, 16) ^ 1:064x}") for at, (j, text) in enumerate(drawn.shares)]
        return msgspec.structs.replace(drawn, shares=tuple(shares))


def swapped(digests: tuple[Digest, ...], index: int, digest: Digest | str) -> tuple[Digest, ...]:
    """`digests` with one exchanged; unchanged for an index below 0."""
    return tuple(Digest(digest) if at == index else honest for at, honest in enumerate(digests))


async def hand_in(job: TrainJob, data: bytes, ports: Ports) -> Outcome:
    """`data` as the delta that `job` gave."""
    await ports.offload(lambda: write_whole(Path(job.delta_out), data))
    return Computed(TrainResult(BlobRef(Digest(sha256(data).hexdigest()), len(data)), 0, 0, 0, 0, 0))


def write_whole(path: Path, data: bytes) -> None:
    """A file that is there whole or not at all."""
    half = path.with_name(f".{path.name}.tmp")
    half.write_bytes(data)
    half.rename(path)


async def first_of_another(  # noqa: RET503 - asleep for ever is no return
    ports: Ports,
    body: type[Commitment | Reveal],
    kind: int,
    announcement: EventId | None = None,
    author: str | None = None,
    number: int | None = None,
) -> Message:
    """The first message of one type that somebody else (`author`) says, in the round of `announcement` or of that number. Waits for ever."""
    async with ports.relays.subscribe([Filter(kinds=(kind,), tags=(("t", ("nostrain",)),))]) as events:
        async for event in events:
            try:
                message = read_message_untrusted(event)
            except RemoteProtocolError:
                continue
            said = message.body
            if not isinstance(said, body) or message.author == ports.signer.pubkey or author not in (None, message.author):
                continue
            if announcement in (None, said.announcement) and number in (None, said.round):
                return message
    await trio.sleep_forever()
