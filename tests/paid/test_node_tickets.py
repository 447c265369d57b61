"""The paywall's book in a coordinator: terms out of the open round, sold tickets in the journal before the buyer hears of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nostrain.core.escrow.rows import Tickets
from nostrain.core.rows import Round
from nostrain.daemon.runtime import Runtime
from nostrain.daemon.storage import load_state
from nostrain.daemon.tickets import NodeTickets
from nostrain.errors import Unavailable
from nostrain.ports.tickets import Ticket
from nostrain.protocol.messages import Announcement
from nostrain.testing.simulation import Plan, Simulation
from nostrain.units import Digest, EventId, Msat, Pubkey
from tests.sim.world import rows_of, simulate

FEE = Msat(500_000)
PLAN = Plan(rounds=1, workers=2, instances=2, fee_msat=FEE, on_disk=frozenset())
UNKNOWN = EventId("99" * 32)


async def opened(sim: Simulation) -> tuple[NodeTickets, Runtime, Round]:
    """The coordinator's book once a round is open, in a network whose workers cannot pay any fee by themselves."""
    for name in ("worker-0", "worker-1"):
        sim.ledger.balances[name] = Msat(0)
    assert await sim.until(lambda: bool(sim.said(Announcement)), limit_s=1_000)
    runtime = sim.participants["coordinator"].runtime
    assert runtime is not None
    (round_,) = rows_of(sim, "coordinator", Round)
    return NodeTickets(lambda: runtime.state, lambda: runtime), runtime, round_


def ticket(round_: Round, worker: Pubkey, number: int = 1) -> Ticket:
    return Ticket(round_.id, worker, 5_000, Digest(f"{number:02x}" * 32), Digest(f"{number + 100:02x}" * 32))


def test_terms_are_those_of_the_manifest_and_the_round() -> None:
    async def scenario(sim: Simulation) -> None:
        book, _, round_ = await opened(sim)
        terms = book.terms(round_.id)
        assert terms is not None
        limits = round_.announcement.deadlines
        assert (terms.run, terms.fee_msat, terms.max_size) == (round_.announcement.run, FEE, 1 << 20)
        assert terms.workers == {sim.key("worker-0"), sim.key("worker-1")}
        assert (terms.sold_until, terms.expires) == (limits.commit_by, limits.attest_by)
        assert book.terms(UNKNOWN) is None

    simulate(PLAN, scenario)


def test_without_a_fee_nothing_is_for_sale() -> None:
    async def scenario(sim: Simulation) -> None:
        book, _, round_ = await opened(sim)
        assert book.terms(round_.id) is None

    simulate(replace(PLAN, fee_msat=Msat(0)), scenario)


def test_a_ticket_is_in_the_journal_when_it_is_handed_out() -> None:
    async def scenario(sim: Simulation) -> None:
        book, _, round_ = await opened(sim)
        mine = ticket(round_, sim.key("worker-0"))
        assert book.held(round_.id, mine.worker) is None
        assert await book.redeem(mine) == mine
        durable = load_state(sim.participants["coordinator"].memory.load()).rows[f"tickets/{round_.id}"]
        assert isinstance(durable, Tickets)
        assert durable.sold[mine.worker].payment_hash == mine.payment_hash
        assert book.held(round_.id, mine.worker) == mine
        assert book.held(round_.id, sim.key("worker-1")) is None

    simulate(PLAN, scenario)


def test_the_first_ticket_of_a_worker_is_the_one_that_it_holds() -> None:
    async def scenario(sim: Simulation) -> None:
        book, runtime, round_ = await opened(sim)
        first, second = ticket(round_, sim.key("worker-0"), 1), ticket(round_, sim.key("worker-0"), 2)
        assert await book.redeem(first) == first
        assert await book.redeem(first) == first
        assert await book.redeem(second) == first
        assert runtime.counters["tickets_sold"] == 1

    simulate(PLAN, scenario)


def test_only_holders_of_tickets_are_offered_an_escrow() -> None:
    async def scenario(sim: Simulation) -> None:
        book, runtime, round_ = await opened(sim)
        await book.redeem(ticket(round_, sim.key("worker-0")))
        assert await sim.until(lambda: bool(runtime.state.groups.get("payer")), limit_s=1_000)
        assert runtime.state.groups["payer"] == (f"payer/{round_.id}/{sim.key('worker-0')}",)

    simulate(PLAN, scenario)


def test_a_ticket_that_cannot_be_recorded_is_refused_and_may_be_shown_again() -> None:
    async def scenario(sim: Simulation) -> None:
        book, _, round_ = await opened(sim)
        mine = ticket(round_, sim.key("worker-0"))
        sim.participants["coordinator"].memory.full = True
        with pytest.raises(Unavailable, match="could not be recorded"):
            await book.redeem(mine)
        assert book.held(round_.id, mine.worker) is None
        sim.participants["coordinator"].memory.full = False
        assert await book.redeem(mine) == mine

    simulate(PLAN, scenario)


@pytest.mark.parametrize("who", ["validator-0", "nobody"])
def test_nobody_else_ever_holds_one(who: str) -> None:
    async def scenario(sim: Simulation) -> None:
        book, _, round_ = await opened(sim)
        worker = sim.key(who) if who in sim.participants else Pubkey("77" * 32)
        with pytest.raises(Unavailable, match="could not be recorded"):
            await book.redeem(ticket(round_, worker))
        assert book.held(round_.id, worker) is None

    simulate(PLAN, scenario)
