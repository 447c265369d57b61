"""The devnet's money: what everybody has in the Lightning network, and whether that is what the rounds' attestations say.

Balances and routing fees come from the nodes alone; rewards and fees follow from signed events; `mismatches` compares the two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import trio

from nostrain.core.escrow.share import LEAST_MSAT
from nostrain.devnet.processes import POLL_S
from nostrain.errors import OutcomeUnknown, Unavailable
from nostrain.lightning.rpc import ClnError, ClnRpc

WATCH_S: Final = 1.0
ASK_S: Final = 30.0
"""Real nodes take a while until no HTLC is on its way."""


class Balance(msgspec.Struct, frozen=True):
    """Of one node: all that it has, what it has offered in HTLCs, what others have offered to it."""

    balance_msat: int
    held_msat: int
    incoming_msat: int


class _Balances(msgspec.Struct, frozen=True):
    nodes: dict[str, Balance]
    total_msat: int


class _Part(msgspec.Struct, frozen=True):
    status: str
    amount_sent_msat: int
    amount_msat: int | None = None


class _Sent(msgspec.Struct, frozen=True):
    payments: tuple[_Part, ...]


class Purse:
    """Reads the network whose control socket is FOLDER/simnet-rpc or FOLDER/regtest-rpc. `before` are the balances at the start."""

    def __init__(self, control: Path) -> None:
        self.kind = control.name.removesuffix("-rpc")
        self._folder, self._rpc = control.parent, ClnRpc(control)
        self.before: dict[str, Balance] = {}

    async def balances(self) -> dict[str, Balance]:
        """What every node has now. Raises Unavailable."""
        try:
            return (await self._rpc.call(f"{self.kind}-balances", {}, _Balances, timeout_s=ASK_S)).nodes
        except (OutcomeUnknown, ClnError) as error:
            raise Unavailable(f"{self.kind}: {error}") from error

    async def fees(self) -> dict[str, int]:
        """What every node has paid to others for the routing of its payments, as `listsendpays` has it. Raises Unavailable."""
        paid = {}
        for name in self.before:
            try:
                sent = await ClnRpc(self._folder / name / "lightning-rpc").call("listsendpays", {}, _Sent, timeout_s=ASK_S)
            except (OutcomeUnknown, ClnError) as error:
                raise Unavailable(f"{self.kind}: {name}: {error}") from error
            paid[name] = sum(fee(part) for part in sent.payments if part.status == "complete")
        return paid

    async def watch(self, tell: Callable[[str], None]) -> None:
        """Tell whenever the sum of held money has come to rest at another value, until cancelled."""
        told = seen = 0
        while True:
            await trio.sleep(WATCH_S)
            try:
                held = sum(one.held_msat for one in (await self.balances()).values())
            except Unavailable:  # a node that was just killed; a network that is gone is noticed elsewhere
                continue
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
            while not done(await self.balances()):  # noqa: ASYNC110 - there is no event for it
                await trio.sleep(POLL_S)
        return await self.balances()


def fee(part: _Part) -> int:
    """What a part of a payment cost above what arrived. Raises Unavailable when its node does not say what was to arrive."""
    if part.amount_msat is None:
        raise Unavailable("listsendpays: a payment without an amount")
    return part.amount_sent_msat - part.amount_msat


def as_report(before: dict[str, Balance], after: dict[str, Balance], fees: Mapping[str, int]) -> dict[str, Any]:
    """The report's `balances`."""
    return {
        name: {
            "before_msat": before[name].balance_msat,
            "after_msat": one.balance_msat,
            "held_msat": one.held_msat,
            "routing_msat": fees.get(name, 0),
        }
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
    """Where the nodes' balances are not what the signed events say: every worker gains its rewards less its fees, every validator its shares
    (but for less than a sat, which is not worth a payment), both less what routing cost them, and nothing is lost; the coordinator has the rest.

    A worker that did not commit in a round may have bought its ticket or not: no public event tells.
    """
    balances, problems = report["balances"], []
    changes = {name: one["after_msat"] - one["before_msat"] for name, one in balances.items()}
    due = {name: -one["routing_msat"] for name, one in balances.items()}
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
