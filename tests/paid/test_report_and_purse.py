"""What the devnet's report says of the money: rewards and fees out of public events, and whether the balances agree to the millisatoshi."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import trio
from msgspec import convert

from nostrain.devnet import purse, report
from nostrain.devnet.layout import Participant
from nostrain.devnet.observer import Observer
from nostrain.errors import Unavailable
from nostrain.lightning.rpc import ClnRpc
from nostrain.testing.simulation import Plan, Simulation
from nostrain.units import Msat
from tests.sim.world import simulate, to_the_end

FEE = Msat(500_000)
PLAN = Plan(seed=3, workers=3, instances=2, fee_msat=FEE, quality={"worker-2": 0.55})


@cache
def recorded() -> dict[str, Any]:
    """The report of a simulated paid run, with the ledger's balances in the place of the simnet's."""

    async def scenario(sim: Simulation) -> dict[str, Any]:
        before = {name: purse.Balance(amount, 0, 0) for name, amount in sim.ledger.balances.items()}
        await to_the_end(sim)
        names = {one.pubkey: one.name for one in sim.participants.values()}
        observer = Observer(lambda _: None, names)
        for event in sim.relays.events.values():
            observer.take(event)
        after = {name: purse.Balance(amount, 0, 0) for name, amount in sim.ledger.balances.items()}
        people = [Participant(one.name, one.role, Path(), one.pubkey) for one in sim.participants.values()]
        return report.build(observer, people, {"balances": purse.as_report(before, after, {})})

    return simulate(PLAN, scenario)


def test_rewards_follow_from_levels_and_fees_from_commitments() -> None:
    found = recorded()
    assert found["paid"] is True
    assert len(found["rounds"]) == PLAN.rounds
    for entry in found["rounds"]:
        for name, worker in entry["workers"].items():
            assert worker["reward_msat"] == worker["level"] * PLAN.level_msat
            assert worker["fee_msat"] == FEE
            assert (worker["level"] == 4) == (name != "worker-2")


def test_the_balances_of_an_honest_run_are_what_its_events_say() -> None:
    found = recorded()
    assert purse.mismatches(found) == []
    changes = {name: one["after_msat"] - one["before_msat"] for name, one in found["balances"].items()}
    assert changes["worker-0"] == PLAN.rounds * (4 * PLAN.level_msat - FEE)
    assert {changes[f"validator-{n}"] for n in range(PLAN.validators)} == {PLAN.rounds * FEE // 2}
    assert changes["coordinator"] == -sum(change for name, change in changes.items() if name != "coordinator")


def move(giver: str, taker: str, amount: int) -> Callable[[dict[str, Any]], None]:
    def change(found: dict[str, Any]) -> None:
        found["balances"][giver]["after_msat"] -= amount
        found["balances"][taker]["after_msat"] += amount

    return change


def lose(name: str, amount: int) -> Callable[[dict[str, Any]], None]:
    def change(found: dict[str, Any]) -> None:
        found["balances"][name]["after_msat"] -= amount

    return change


def hold(name: str, amount: int) -> Callable[[dict[str, Any]], None]:
    def change(found: dict[str, Any]) -> None:
        found["balances"][name]["held_msat"] = amount

    return change


def level(name: str, by: int) -> Callable[[dict[str, Any]], None]:
    def change(found: dict[str, Any]) -> None:
        found["rounds"][0]["workers"][name]["reward_msat"] += by * PLAN.level_msat

    return change


def share(name: str, by: int) -> Callable[[dict[str, Any]], None]:
    def change(found: dict[str, Any]) -> None:
        found["rounds"][0]["validators"][name]["share_msat"] += by

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (move("coordinator", "worker-0", 1), "worker-0 should have gained"),
        (move("worker-1", "worker-0", 1), "worker-1 should have gained"),
        (move("worker-0", "validator-0", 1_000), f"validator-0 should have gained {PLAN.rounds * FEE // 2}"),
        (move("validator-1", "coordinator", 1), "validator-1 should have gained"),
        (share("validator-2", 1), "validator-2 should have gained"),
        (lose("coordinator", 1), "-1 msat came from nowhere"),
        (hold("coordinator", 7), "7 msat are still held"),
        (level("worker-2", -1), "worker-2 should have gained"),
        (level("worker-2", 1), "worker-2 should have gained"),
    ],
)
def test_a_millisatoshi_too_many_is_found(change: Callable[[dict[str, Any]], None], words: str) -> None:
    found = copy.deepcopy(recorded())
    change(found)
    assert any(words in problem for problem in purse.mismatches(found)), purse.mismatches(found)


def test_what_routing_cost_is_the_payers_and_those_have_it_who_forwarded() -> None:
    found = copy.deepcopy(recorded())
    move("worker-0", "coordinator", 7)(found)
    assert purse.mismatches(found) != []
    found["balances"]["worker-0"]["routing_msat"] = 7
    assert purse.mismatches(found) == []
    found["balances"]["worker-1"]["routing_msat"] = 1
    assert any("worker-1 should have gained" in problem for problem in purse.mismatches(found))


async def test_routing_fees_are_what_was_sent_above_what_arrived(monkeypatch: pytest.MonkeyPatch) -> None:
    parts: list[dict[str, object]] = [
        {"status": "complete", "amount_sent_msat": 1_003, "amount_msat": 1_000},
        {"status": "failed", "amount_sent_msat": 9_000, "amount_msat": 8_000},
        {"status": "complete", "amount_sent_msat": 50, "amount_msat": 50},
    ]
    said = {"a": parts, "b": [{"status": "complete", "amount_sent_msat": 5}]}

    async def call(rpc: ClnRpc, method: str, params: object, shape: type[Any], timeout_s: float) -> Any:
        await trio.lowlevel.checkpoint()
        assert method == "listsendpays"
        return convert({"payments": said[rpc._path.parent.name]}, shape)

    monkeypatch.setattr(ClnRpc, "call", call)
    one = purse.Purse(Path("regtest/regtest-rpc"))
    one.before = {"a": purse.Balance(0, 0, 0)}
    assert await one.fees() == {"a": 3}
    one.before = {"b": purse.Balance(0, 0, 0)}
    with pytest.raises(Unavailable, match="without an amount"):
        await one.fees()
