"""A worker that comes to a run of real processes when half of it is over: it takes one checkpoint and none of the deltas before it, and works."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from nostrain.core.rounds.scoring import pinned
from nostrain.devnet import report
from nostrain.devnet.layout import Options, Participant, devnet_secret
from nostrain.devnet.supervisor import Devnet, open_devnet
from nostrain.errors import Unavailable
from nostrain.keys.signer import NostrSigner
from nostrain.keys.store import open_root
from nostrain.units import Digest
from nostrain.wire.control import CatchingUp

pytest.importorskip("torch", reason="SKIPPED E2E: torch is not installed, so no engine can train (install the extra `torch`)")
SLOW = "SKIPPED E2E: a devnet of five rounds takes two minutes, too much for every run; NOSTRAIN_E2E_ALL=1 runs it"
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(500),
    pytest.mark.skipif(os.environ.get("NOSTRAIN_E2E_ALL") != "1", reason=SLOW),
]
ROUNDS, JOINS = 5, 3
LATE = "worker-3"


def newcomer(devnet: Devnet) -> Participant:
    """One more worker, configured as the others are."""
    model = devnet.participant("worker-1")
    folder = devnet.root / LATE
    folder.mkdir()
    secret = open_root(folder, lambda size: devnet_secret(devnet.options.seed, LATE)[:size])
    late = Participant(LATE, "worker", folder, NostrSigner(secret).pubkey)
    late.config.write_text(model.config.read_text().replace(model.name, LATE))
    return late


async def watched(devnet: Devnet, seen: list[CatchingUp]) -> None:
    """Ask it again and again how it catches up."""
    while True:
        try:
            answer = await devnet.status(LATE)
        except Unavailable:
            answer = None
        if answer is not None and answer.status is not None and answer.status.catching_up is not None:
            seen.append(answer.status.catching_up)
        await trio.sleep(0.02)


async def test_a_worker_that_comes_late_takes_a_checkpoint_instead_of_the_run(tmp_path: Path, seed: int) -> None:
    lines: list[str] = []
    seen: list[CatchingUp] = []
    options = Options(rounds=ROUNDS, workers=2, validators=2, seed=seed % 1000, paid=False)
    async with open_devnet(tmp_path, options, lines.append) as devnet:
        observer = devnet.observer
        await devnet.wait_for(lambda: JOINS in observer.rounds)
        late = newcomer(devnet)
        devnet.participants.append(late)
        observer.names[late.pubkey] = LATE
        await devnet.start(late)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watched, devnet, seen)
            await devnet.wait_for(lambda: observer.done)
            nursery.cancel_scope.cancel()
    assert report.agreement(observer) == [], "\n".join(lines)
    assert late.pubkey in pinned(observer.rounds[ROUNDS].round), "\n".join(lines)
    assert late.pubkey in observer.rounds[ROUNDS].confirmations
    log = late.log.read_text()
    (landed,) = [line for line in log.splitlines() if "joined at the checkpoint of round" in line]
    number = int(landed.partition("of round ")[2].partition(",")[0])
    assert number >= JOINS - 1
    have = {Digest(path.name.partition(".")[0]): path.stat().st_size for path in (late.folder / "blobs").rglob("*") if path.is_file()}
    closed = {at: watched.round.result[1] for at, watched in observer.rounds.items() if watched.round.result is not None}
    deltas = {at: {item.delta.sha256 for item in result.accepted} for at, result in closed.items()}
    assert not have.keys() & set().union(*(deltas[at] for at in range(1, number + 1)))
    assert set().union(*(deltas[at] for at in range(number + 1, ROUNDS + 1))) <= have.keys()
    assert observer.run is not None
    assert observer.run.manifest.checkpoint.sha256 not in have
    assert closed[number].checkpoint.sha256 in have
    assert seen
    assert {one.checkpoint for one in seen} <= {None, number}
    assert all(one.round == 0 for one in seen if one.checkpoint == number)
