"""A devnet over real nodes in which a worker's lightningd is killed while it holds, and another worker's daemon between preimage and settle; and one in
which the coordinator's daemon is killed while it pays."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import trio

from nostrain.core.escrow.rows import Payee
from nostrain.core.rounds.scoring import pinned
from nostrain.core.tables import PayeeState
from nostrain.daemon.storage import load_state
from nostrain.devnet import purse, report
from nostrain.devnet.layout import LEVEL_MSAT, Options
from nostrain.devnet.supervisor import Devnet, open_devnet
from nostrain.journal import SqliteJournal
from nostrain.lightning.rpc import ClnRpc
from tests.regtest.networks import PATIENCE_S, require_programs

pytest.importorskip("torch", reason="SKIPPED REGTEST: torch is not installed, so no engine can train (install the extra `torch`)")
SLOW: Final = "SKIPPED REGTEST: a devnet over six real nodes takes two minutes of both cores; NOSTRAIN_E2E_ALL=1 runs it"
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(500), pytest.mark.skipif(os.environ.get("NOSTRAIN_E2E_ALL") != "1", reason=SLOW)]

ROUNDS: Final = 2
BREATH_S: Final = 0.05
WORKERS: Final = ("worker-1", "worker-2")


@pytest.fixture
def root() -> Iterator[Path]:
    """Sockets' paths have to be short."""
    with tempfile.TemporaryDirectory(prefix="nm", dir="/tmp") as folder:
        yield Path(folder)


async def fault(root: Path, kind: str, node: str) -> None:
    """`crash`: kill -9 of a lightningd and its plugins; `start`: returns when its channel is usable again."""
    await ClnRpc(root / "regtest" / "regtest-rpc").call("regtest-fault", {"kind": kind, "node": node}, dict, timeout_s=PATIENCE_S)


async def reached(devnet: Devnet, number: int, milestone: str) -> None:
    """Wait for a milestone of a round."""
    await devnet.wait_for(lambda: number in devnet.observer.rounds and milestone in devnet.observer.rounds[number].seen)


def levels_of(folder: Path) -> list[tuple[PayeeState, bool]]:
    """Of a daemon that is not running: of each level of its work, where it stands, and whether its preimage is known."""
    with SqliteJournal.open(folder / "journal.sqlite") as journal:
        rows = load_state(journal.load()).rows.values()
    return [(level.state, level.preimage is not None) for row in rows if isinstance(row, Payee) for level in row.levels]


async def kill_in_mid_round(devnet: Devnet) -> None:
    """In the first round. worker-2's lightningd is away from before the attestations on, so that its daemon has preimages and cannot settle."""
    root, worker = devnet.root, devnet.participant("worker-2")
    assert devnet.lightning is not None
    await reached(devnet, 1, "committed")
    await fault(root, "crash", "worker-1")
    await fault(root, "crash", "worker-2")
    held = (await devnet.lightning.purse.balances())["coordinator"].held_msat
    assert held == 8 * LEVEL_MSAT, "whoever commits has all its levels held"
    await fault(root, "start", "worker-1")
    await reached(devnet, 1, "confirmed")
    await devnet.kill("worker-2")
    attested = report.one_round(devnet.observer, devnet.observer.rounds[1])["workers"]["worker-2"]["level"]
    assert levels_of(worker.folder).count((PayeeState.SETTLING, True)) == attested > 0
    assert (await devnet.lightning.purse.balances())["worker-2"].incoming_msat == 4 * LEVEL_MSAT, (
        "nothing is settled, nothing has gone back"
    )
    await fault(root, "start", "worker-2")
    await devnet.start(worker)


async def kill_the_payers_daemon(devnet: Devnet) -> None:
    """Three times: while it sends the holds of round 1, when all are held, and while it is owed nothing but preimages."""
    assert devnet.lightning is not None
    purse, coordinator = devnet.lightning.purse, devnet.participant("coordinator")
    await reached(devnet, 1, "announced")
    while not (await purse.balances())["coordinator"].held_msat:
        await trio.sleep(BREATH_S)
    await devnet.kill("coordinator")
    await devnet.start(coordinator)
    await reached(devnet, 1, "committed")
    await devnet.kill("coordinator")
    assert (await purse.balances())["coordinator"].held_msat == 8 * LEVEL_MSAT, "what was begun is held, once, and nothing else"
    await devnet.start(coordinator)
    await reached(devnet, 1, "attested")
    await devnet.kill("coordinator")
    await devnet.start(coordinator)


async def money(devnet: Devnet) -> dict[str, Any]:
    """The report, with the nodes' balances once nothing is held any more."""
    assert devnet.lightning is not None
    own = devnet.lightning.purse
    due = purse.shares_due(report.build(devnet.observer, devnet.participants, {}))
    balances = purse.as_report(own.before, await own.settled(due), await own.fees())
    return report.build(devnet.observer, devnet.participants, {"balances": balances})


@pytest.mark.parametrize("kills", [kill_in_mid_round, kill_the_payers_daemon])
async def test_nobody_is_paid_less_or_twice(root: Path, seed: int, kills: Callable[[Devnet], Awaitable[None]]) -> None:
    require_programs()
    lines: list[str] = []
    options = Options(rounds=ROUNDS, workers=len(WORKERS), validators=3, seed=seed % 1000, lightning="regtest")
    async with open_devnet(root, options, lines.append) as devnet:
        await kills(devnet)
        await devnet.wait_for(lambda: devnet.observer.done)
        found = await money(devnet)
    told = "\n".join(lines)
    assert devnet.lightning is not None
    assert devnet.lightning.complaints == []
    assert report.agreement(devnet.observer) == [], told
    assert purse.mismatches(found) == [], told
    for name in WORKERS:
        last = devnet.observer.rounds[ROUNDS].round
        assert devnet.participant(name).pubkey in pinned(last), f"{name} does not work in the next round\n{told}"
        earned = sum(entry["workers"][name]["reward_msat"] for entry in found["rounds"])
        assert earned > 0
    assert PayeeState.SETTLING not in {state for state, _ in levels_of(devnet.participant("worker-2").folder)}
