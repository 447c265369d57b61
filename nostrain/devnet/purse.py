"""The devnet's money: the simnet process, what everybody has in it, and whether that is what the rounds' attestations say.

Balances come from the simnet alone; rewards and fees follow from signed events; `mismatches` compares the two.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import trio

from nostrain.core.share import LEAST_MSAT
from nostrain.devnet.layout import Options, roles_of
from nostrain.devnet.processes import POLL_S, Processes
from nostrain.errors import OutcomeUnknown, Unavailable
from nostrain.lightning.rpc import ClnError, ClnRpc

HUB_MSAT: Final = 50_000_000
"""What the coordinator has in its channel with each of the others."""
WORKER_MSAT: Final = 5_000_000
"""What a worker has for fees, above the channel's reserve of 1 % of its capacity."""
VALIDATOR_MSAT: Final = 0
"""What a validator has: it only receives."""
BLOCK_S: Final = 10
WATCH_S: Final = 1.0
START_S: Final = 30.0


class Balance(msgspec.Struct, frozen=True):
    """Of one node: all that it has, what it has offered in HTLCs, what others have offered to it."""

    balance_msat: int
    held_msat: int
    incoming_msat: int


class _Balances(msgspec.Struct, frozen=True):
    nodes: dict[str, Balance]
    total_msat: int


class Purse:
    """Reads the simnet. `before` are the balances at the start."""

    def __init__(self, control: Path) -> None:
        self._rpc = ClnRpc(control)
        self.before: dict[str, Balance] = {}

    async def balances(self) -> dict[str, Balance]:
        """What every node has now. Raises Unavailable."""
        try:
            return (await self._rpc.call("simnet-balances", {}, _Balances, timeout_s=10)).nodes
        except (OutcomeUnknown, ClnError) as error:
            raise Unavailable(f"simnet: {error}") from error

    async def watch(self, tell: Callable[[str], None]) -> None:
        """Tell whenever the sum of held money has come to rest at another value, until cancelled."""
        told = seen = 0
        while True:
            await trio.sleep(WATCH_S)
            held = sum(one.held_msat for one in (await self.balances()).values())
            if held == seen and held != told:
                tell(f"money: {held // 1000:,} sat held" if held else "money: everything held was released or came back")
                told = held
            seen = held

    async def settled(self, shares: Mapping[str, int], limit_s: float = 60) -> dict[str, Balance]:
        """The balances once nothing is held any more and the validators have what they are due, or after `limit_s`."""

        def done(now: dict[str, Balance]) -> bool:
            gained = {name: now[name].balance_msat - self.before[name].balance_msat for name in shares}
            return not any(one.held_msat for one in now.values()) and all(due - gained[name] < LEAST_MSAT for name, due in shares.items())

        with trio.move_on_after(limit_s):
            while not done(await self.balances()):  # noqa: ASYNC110 - the simnet has no event for it
                await trio.sleep(POLL_S)
        return await self.balances()


async def start_simnet(processes: Processes, root: Path, options: Options) -> Purse:
    """Start the test network: the coordinator in the middle, a channel to each of the others. Raises Unavailable when it does not come up."""
    folder, ready = root / "simnet", root / "simnet.ready"
    folder.mkdir(exist_ok=True)
    funds = {"coordinator": HUB_MSAT * (options.workers + options.validators), "worker": WORKER_MSAT, "validator": VALIDATOR_MSAT}
    nodes = [f"{name}={funds[role]}" for name, role in roles_of(options)]
    arguments = ("--dir", str(folder), "--nodes", ",".join(nodes), "--block-seconds", str(BLOCK_S), "--ready-file", str(ready))
    child = await processes.start("simnet", (sys.executable, "-m", "nostrain.devnet.simnet", *arguments), root / "simnet.log")
    with trio.move_on_after(START_S):
        while not ready.exists() and child.exit_code is None:  # noqa: ASYNC110 - the file is how it says that it is ready
            await trio.sleep(POLL_S)
    if not ready.exists():
        raise Unavailable(f"the simnet did not start; its log is {root / 'simnet.log'}")
    purse = Purse(Path(ready.read_text().strip()))
    purse.before = await purse.balances()
    return purse


def as_report(before: dict[str, Balance], after: dict[str, Balance]) -> dict[str, Any]:
    """The report's `balances`."""
    return {
        name: {"before_msat": before[name].balance_msat, "after_msat": one.balance_msat, "held_msat": one.held_msat}
        for name, one in after.items()
    }


def shares_due(report: dict[str, Any]) -> dict[str, int]:
    """What each validator has of all rounds' fees."""
    due: dict[str, int] = {}
    for entry in report["rounds"]:
        for name, validator in entry["validators"].items():
            due[name] = due.get(name, 0) + validator["share_msat"]
    return due


def mismatches(report: dict[str, Any]) -> list[str]:
    """Where the simnet's balances are not what the signed events say: every worker gains its rewards less its fees, every validator its
    shares (but for less than a sat, which is not worth a payment), and nothing is lost; the coordinator has the rest.

    A worker that did not commit in a round may have bought its ticket or not: no public event tells.
    """
    balances, problems = report["balances"], []
    changes = {name: one["after_msat"] - one["before_msat"] for name, one in balances.items()}
    due = dict.fromkeys(balances, 0)
    unpaid = {name: {0} for name in balances}
    for entry in report["rounds"]:
        for name, worker in entry["workers"].items():
            due[name] += worker["reward_msat"] - worker["fee_msat"]
            if worker["fee_msat"] == 0:
                unpaid[name] |= {paid + entry["fee_msat"] for paid in unpaid[name]}
    for name, share in shares_due(report).items():
        due[name] += share
        unpaid[name] = {0, share} if share < LEAST_MSAT else {0}
    for name, change in changes.items():
        if name != "coordinator" and due[name] - change not in unpaid[name]:
            problems.append(f"{name} should have gained {due[name]} msat and has gained {change}")
    if sum(changes.values()) != 0:
        problems.append(f"{sum(changes.values())} msat came from nowhere")
    held = sum(one["held_msat"] for one in balances.values())
    if held:
        problems.append(f"{held} msat are still held")
    return problems
