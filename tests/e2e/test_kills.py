"""`kill -9` of one daemon of each role in a random phase of a random round, and a restart: it takes part again by the next round."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from nostrain.core.rounds.scoring import pinned
from nostrain.devnet import report
from nostrain.devnet.layout import Options
from nostrain.devnet.supervisor import Devnet, open_devnet

pytest.importorskip("torch", reason="SKIPPED E2E: torch is not installed, so no engine can train (install the extra `torch`)")
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(500)]

MILESTONES = ("announced", "committed", "acknowledged", "revealed", "scored", "attested", "closed")
ROUNDS = 4


async def kill_and_restart(devnet: Devnet, name: str, number: int, milestone: str) -> None:
    """Wait for a milestone of a round, kill, start again at once."""
    await devnet.wait_for(lambda: number in devnet.observer.rounds and milestone in devnet.observer.rounds[number].seen)
    await devnet.kill(name)
    await devnet.start(devnet.participant(name))


async def test_one_kill_of_each_role(tmp_path: Path, rng: random.Random, capsys: pytest.CaptureFixture[str]) -> None:
    """Rounds 1 to 3 lose a worker, a validator and the coordinator, in random order and phase; round 4 and every state are whole."""
    victims = ["worker-1", "validator-1", "coordinator"]
    rng.shuffle(victims)
    plan = [(number, rng.choice(MILESTONES), name) for number, name in enumerate(victims, start=1)]
    with capsys.disabled():
        print(f"\nkills: {plan}")
    lines: list[str] = []
    async with open_devnet(tmp_path, Options(rounds=ROUNDS, workers=2, validators=3, seed=rng.randrange(1000)), lines.append) as devnet:
        for number, milestone, name in plan:
            await kill_and_restart(devnet, name, number, milestone)
        await devnet.wait_for(lambda: devnet.observer.done)
        observer = devnet.observer
    assert report.agreement(observer) == [], "\n".join(lines)
    for number, _, name in plan:
        following = observer.rounds[number + 1].round
        key = devnet.participant(name).pubkey
        if name.startswith("worker"):
            assert key in pinned(following), f"{name}, killed in round {number}, does not work in the next\n" + "\n".join(lines)
        elif name.startswith("validator"):
            assert key in following.verdicts, f"{name}, killed in round {number}, does not score in the next\n" + "\n".join(lines)
        else:
            assert following.result is not None
            assert following.result[1].accepted
