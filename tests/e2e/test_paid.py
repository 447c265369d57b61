"""A paid devnet from one command: every payment made, held, released and accounted for to the millisatoshi, by the simnet's own balances."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from nostrain.devnet.layout import FEE_MSAT, LEVEL_MSAT
from nostrain.devnet.purse import Purse
from nostrain.journal import SqliteJournal
from nostrain.lightning.rpc import ClnRpc

pytest.importorskip("torch", reason="SKIPPED E2E: torch is not installed, so no engine can train (install the extra `torch`)")
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

CTL = (sys.executable, "-m", "nostrain.ctl")
ROUNDS = 2
WORKERS = ("worker-1", "worker-2")
VALIDATORS = ("validator-1", "validator-2", "validator-3")


async def ctl(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return await trio.run_process([*CTL, *arguments], capture_stdout=True, capture_stderr=True, stdin=subprocess.DEVNULL, check=False)


async def ask_until(folder: Path, name: str, method: str, word: str) -> str:
    """What `nostrain-ctl METHOD` prints for a daemon of the running devnet, once it has `word`."""
    while True:
        shown = await ctl(method, "--control", str(folder / name / "control.sock"))
        if word in (text := shown.stdout.decode()):
            return text
        await trio.sleep(2)


async def take_nodes_away(folder: Path, names: tuple[str, ...]) -> None:
    """As soon as money is held: kill -9 of these Lightning nodes, and a new start once the daemons have noticed."""
    simnet = ClnRpc(folder / "simnet" / "simnet-rpc")
    while not any(one.held_msat for one in (await Purse(folder / "simnet" / "simnet-rpc").balances()).values()):
        await trio.sleep(0.5)
    for kind, state in (("crash", "lightning  down"), ("start", "lightning  ready")):
        for name in names:
            await simnet.call("simnet-fault", {"kind": kind, "node": name}, dict, timeout_s=10)
        for name in names:
            assert state in await ask_until(folder, name, "status", state)


def net(report: dict[str, Any], name: str) -> int:
    """Rewards less fees of one worker, as the rounds have it."""
    mine = [entry["workers"][name] for entry in report["rounds"]]
    return sum(worker["reward_msat"] - worker["fee_msat"] for worker in mine)


async def test_every_worker_gains_its_rewards_less_its_fees(tmp_path: Path, seed: int) -> None:
    folder, report_path = tmp_path / "d", tmp_path / "report.json"
    sizes = ("--rounds", str(ROUNDS), "--workers", str(len(WORKERS)), "--seed", str(seed % 1000))
    asked: dict[str, str] = {}

    async def look() -> None:
        asked["wallet"] = await ask_until(folder, "coordinator", "wallet", "5 channels")
        await take_nodes_away(folder, ("coordinator", "worker-1"))
        asked["away"] = "and back"
        asked["earnings"] = await ask_until(folder, "worker-1", "earnings", "accepted")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        done = await ctl("devnet", *sizes, "--keep", str(folder), "--json", str(report_path))
        nursery.cancel_scope.cancel()
    output = done.stdout.decode() + done.stderr.decode()
    assert done.returncode == 0, output
    report = json.loads(report_path.read_text())
    assert report["paid"] is True
    assert len(report["rounds"]) == ROUNDS
    balances = report["balances"]
    assert {one["held_msat"] for one in balances.values()} == {0}
    assert sum(one["before_msat"] for one in balances.values()) == sum(one["after_msat"] for one in balances.values())
    for name in WORKERS:
        assert balances[name]["after_msat"] - balances[name]["before_msat"] == net(report, name)
    shares = {name: sum(entry["validators"][name]["share_msat"] for entry in report["rounds"]) for name in VALIDATORS}
    for name, share in shares.items():
        assert balances[name]["after_msat"] - balances[name]["before_msat"] == share > 0
    fees = sum(worker["fee_msat"] for entry in report["rounds"] for worker in entry["workers"].values())
    rewards = sum(worker["reward_msat"] for entry in report["rounds"] for worker in entry["workers"].values())
    change = balances["coordinator"]["after_msat"] - balances["coordinator"]["before_msat"]
    assert change == fees - sum(shares.values()) - rewards
    for entry in report["rounds"]:
        for worker in entry["workers"].values():
            assert worker["reward_msat"] == worker["level"] * LEVEL_MSAT
            assert worker["fee_msat"] == FEE_MSAT
    for name in (*WORKERS, "coordinator"):
        with SqliteJournal.open(folder / name / "journal.sqlite") as journal:
            booked = sum(total.change_msat for total in journal.totals())
        assert booked == balances[name]["after_msat"] - balances[name]["before_msat"], "the ledger says what the simnet says"
    assert sum(net(report, name) for name in WORKERS) > 0, "somebody's work was paid"
    assert "sat held" in output, "what is held is shown while it is"
    assert "money, in sat (from the simnet)" in output
    assert "regtest" in asked["wallet"]
    assert asked["away"] == "and back", "two of three Lightning nodes were killed in mid-round"
    assert f"{-FEE_MSAT // 1000}" in asked["earnings"]
