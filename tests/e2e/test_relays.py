"""Three relays under real processes: all of them killed in mid-round and started again, with or without their events; one that is never started again."""

from __future__ import annotations

import os
import random
from collections.abc import Collection
from pathlib import Path

import pytest

import nostrain
from nostrain.devnet import report
from nostrain.devnet.layout import Options
from nostrain.devnet.observer import Observer
from nostrain.devnet.supervisor import Devnet, open_devnet
from nostrain.protocol.manifest import TimingSpec
from tests.e2e.asking import tells_everything

pytest.importorskip("torch", reason="SKIPPED E2E: torch is not installed, so no engine can train (install the extra `torch`)")
SLOW = "SKIPPED E2E: devnets whose relays are killed take some minutes of both cores; NOSTRAIN_E2E_ALL=1 runs them"
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600), pytest.mark.skipif(os.environ.get("NOSTRAIN_E2E_ALL") != "1", reason=SLOW)]

MOMENTS = ("announced", "committed", "acknowledged", "revealed", "scored")
"""When the relays are killed: somewhere between the first word of a round and its last."""

WORKERS = 2
TIMING = TimingSpec(commit_s=300, acknowledge_s=60, reveal_s=60, verdict_s=300, attest_s=60, grace_s=5)
"""No phase waits so long unless something is lost; a crowded machine does not lose it."""
TEXT = Path(nostrain.__file__).parent
"""What they learn from: a fifteenth of the default, to be built and verified in no time."""


async def kill(devnet: Devnet, names: Collection[str], moment: str) -> None:
    """`kill -9` of the relays at that moment of round 1; returns once every daemon has noticed."""
    await devnet.wait_for(lambda: 1 in devnet.observer.rounds and moment in devnet.observer.rounds[1].seen)
    begin = {one.name: one.log.stat().st_size for one in devnet.participants}
    for name in names:
        await devnet.kill(name)

    def noticed() -> bool:
        said = [one.log.read_text()[begin[one.name] :].splitlines() for one in devnet.participants]
        return all(any(devnet.relays[name] in line and "next attempt in" in line for line in lines) for lines in said for name in names)

    await devnet.wait_for(noticed)


def complaints(observer: Observer, rounds: int) -> list[str]:
    """What was lost of a run: rounds, or the work of a worker in one."""
    found = report.agreement(observer)
    for number in range(1, rounds + 1):
        result = observer.rounds[number].round.result
        used = 0 if result is None else len(result[1].accepted)
        found += [f"round {number}: {used} of {WORKERS} deltas used"] if used != WORKERS else []
    return found


@pytest.mark.parametrize("lasting", [0, 1, 3], ids=["all_forget", "one_remembers", "all_remember"])
async def test_all_relays_are_killed_in_mid_round_and_the_run_goes_on(
    tmp_path: Path, rng: random.Random, lasting: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody's work is lost, and what relays have forgotten is brought back by its authors: in the end each of them has the whole run."""
    moment = rng.choice(MOMENTS)
    with capsys.disabled():
        print(f"\nkilled when {moment}, {lasting} of 3 remember")
    lines: list[str] = []
    options = Options(
        rounds=2, workers=WORKERS, validators=2, relays=3, text=TEXT, timing=TIMING, lasting_relays=lasting, seed=rng.randrange(1000)
    )
    async with open_devnet(tmp_path, options, lines.append) as devnet:
        await kill(devnet, devnet.relays, moment)
        for name in devnet.relays:
            await devnet.restart_relay(name)
        await devnet.wait_for(lambda: devnet.observer.done)
        assert devnet.observer.run is not None
        for url in devnet.relays.values():
            await tells_everything(url, devnet.observer.run)
    assert not complaints(devnet.observer, options.rounds), "\n".join(lines)


async def test_one_relay_of_three_dies_for_good_and_no_round_is_lost(
    tmp_path: Path, rng: random.Random, capsys: pytest.CaptureFixture[str]
) -> None:
    moment, lost = rng.choice(MOMENTS), rng.randrange(3)
    with capsys.disabled():
        print(f"\nrelay-{lost + 1} killed when {moment}")
    lines: list[str] = []
    options = Options(rounds=3, workers=WORKERS, validators=2, relays=3, text=TEXT, timing=TIMING, seed=rng.randrange(1000))
    async with open_devnet(tmp_path, options, lines.append) as devnet:
        await kill(devnet, list(devnet.relays)[lost : lost + 1], moment)
        await devnet.wait_for(lambda: devnet.observer.done)
    assert not complaints(devnet.observer, options.rounds), "\n".join(lines)
