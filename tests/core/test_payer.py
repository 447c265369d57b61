"""The payer's side of an escrow, step by step, and everything that can go wrong on the way."""

from __future__ import annotations

import msgspec
import pytest

from nostrain.core.effects import Draw, DrawLocks, Drawn, LocksOpened, OpenLocks, Pay, PayEnded
from nostrain.core.escrow.rows import Payer
from nostrain.core.inputs import Received, TicketRedeemed
from nostrain.core.tables import PayerState
from nostrain.daemon.runners import locks
from nostrain.protocol import messages as m
from nostrain.protocol.messages import Choice, Invoices, Message, Offer, Openings
from nostrain.units import Digest, EventId
from tests.core.actors import EXAMPLES, LIMITS, MESSAGES, Node, changed, say, until
from tests.docs.examples import COORDINATOR, START, VALIDATORS, WORKERS, Party

P = PayerState
WORKER = WORKERS[0]
ZERO = Digest("00" * 32)
KEY = f"payer/{EXAMPLES.round_id}/{WORKER.pubkey}"
SEEDS = "".join(f"{n:064x}" for n in range(1, 5))
ORACLES = until("oracle announcements 2")
HEAD = (EXAMPLES.run, EXAMPLES.round_id, 1)


def payer(heard: list[Message] = ORACLES) -> Node:
    """A coordinator whose state is ready, and whose workers hold tickets of the round."""
    node = Node(COORDINATOR, "coordinator").hear(heard).ready()
    for worker in WORKERS:
        node.take(TicketRedeemed(EXAMPLES.round_id, worker.pubkey, 1, ZERO, ZERO))
    return node.at(8)


def row(node: Node) -> Payer:
    return node.row(KEY, Payer)


def states(node: Node) -> set[PayerState]:
    return {level.state for level in row(node).levels}


def seeded(node: Node) -> Node:
    """The entropy for the worker's locks has come."""
    effect = next(effect for effect in node.asks(Draw) if effect.owner == KEY)
    node.ends(effect, Drawn(SEEDS))
    return node


def offered(node: Node | None = None) -> tuple[Node, Offer, EventId]:
    """The locks are drawn and the offer is sent."""
    node = seeded(node or payer())
    effect = node.asked(DrawLocks)
    node.ends(effect, locks.run(effect))
    said = next(message for message in node.speak() if isinstance(message.body, Offer))
    assert isinstance(said.body, Offer)
    return node, said.body, said.id


def opened(chosen: tuple[int, ...] = (1, 0, 0, 1)) -> tuple[Node, Openings, EventId]:
    """The worker has chosen, the others are opened."""
    node, _, offer = offered()
    node.hear([say(WORKER, Choice(*HEAD, offer, chosen), 9)])
    effect = node.asked(OpenLocks)
    node.ends(effect, locks.run(effect))
    said = next(message.body for message in node.speak() if isinstance(message.body, Openings))
    return node, said, offer


def invoices(offer: EventId, count: int = 4, by: Party = WORKER) -> Message:
    return say(by, Invoices(*HEAD, offer, tuple(f"lnfake{n}" for n in range(count))), 11)


def test_without_a_ticket_there_is_no_offer() -> None:
    node = Node(COORDINATOR, "coordinator").hear(ORACLES).ready().at(8)
    assert node.asks(Draw) == []
    node.take(TicketRedeemed(EXAMPLES.round_id, WORKER.pubkey, 1, ZERO, ZERO))
    node.take(TicketRedeemed(EXAMPLES.round_id, WORKER.pubkey, 2, ZERO, ZERO))
    node.take(TicketRedeemed(EXAMPLES.round_id, COORDINATOR.pubkey, 1, ZERO, ZERO))
    assert [effect.owner for effect in node.asks(Draw)] == [KEY]


# --- the way that it should go -------------------------------------------------------------------------------------------


def test_an_escrow_from_oracles_to_preimage() -> None:
    node, openings, offer = opened()
    node.hear([invoices(offer)])
    pays = sorted(node.asks(Pay), key=lambda pay: pay.name)
    assert [(pay.bolt11, pay.payment_hash) for pay in pays] == [(f"lnfake{n}", lock.payment_hash) for n, lock in enumerate(openings.locks)]
    assert {pay.amount_msat for pay in pays} == {EXAMPLES.manifest.level_msat}
    assert states(node) == {P.PAYING}
    for number, pay in enumerate(pays):
        node.ends(pay, PayEnded("11" * 32 if number < 2 else None))
    assert [level.state for level in row(node).levels] == [P.PAID, P.PAID, P.FAILED, P.FAILED]
    assert node.told("payments_ended")[1].endswith("was released")


def test_the_offer_names_digests_of_all_instances_and_oracles() -> None:
    _, offer, _ = offered()
    assert len(offer.instances) == 4
    assert all(len(set(level)) == 2 for level in offer.instances)
    assert offer.oracles == tuple(EXAMPLES.oracles[party.name][0].digest for party in VALIDATORS)


def test_only_the_instances_that_were_not_chosen_are_opened() -> None:
    node, openings, _ = opened((1, 0, 0, 1))
    effect = LocksOpened(openings.seeds, openings.locks)
    assert all(len(level) == 1 for level in effect.seeds)
    secret = {seed for seeds in row(node).seeds for seed in [seeds]}
    assert not secret & {seed for level in openings.seeds for seed in level}


# --- who gets an offer, and when -----------------------------------------------------------------------------------------


def test_every_listed_worker_gets_an_offer_once_all_oracles_announced() -> None:
    assert not payer(until("oracle announcements 1")).asks(Draw)
    assert {effect.owner for effect in payer().asks(Draw)} == {f"payer/{EXAMPLES.round_id}/{worker.pubkey}" for worker in WORKERS}


def test_after_a_third_of_the_window_the_oracles_that_there_are_have_to_do() -> None:
    node = payer(until("oracle announcements 1"))
    third = LIMITS.commit_by - EXAMPLES.manifest.timing.commit_s * 2 // 3
    node.at(third - START)
    assert not node.asks(Draw)
    node.at(third + 1 - START)
    assert len(node.asks(Draw)) == 3
    alone = payer(until("oracle announcements 0")).at(third + 1 - START)
    assert not alone.asks(Draw)


def test_a_validator_that_contradicted_itself_is_not_relied_on() -> None:
    node = payer()
    liar = VALIDATORS[1].pubkey
    node.state = type(node.state)({**node.state.rows, "run": msgspec.structs.replace(node.run, faulty={liar: "it lied"})})
    seeded(node)
    assert row(node).oracles == tuple(EXAMPLES.oracles[party.name][0].digest for party in (VALIDATORS[0], VALIDATORS[2]))
    effect = node.asked(DrawLocks)
    assert [index for index, _ in effect.terms.oracles] == [1, 3]


def test_an_announcement_that_comes_after_the_draw_does_not_change_the_offer() -> None:
    third = LIMITS.commit_by - EXAMPLES.manifest.timing.commit_s * 2 // 3 + 1 - START
    node, offer, offer_id = offered(payer(until("oracle announcements 1")).at(third))
    node.hear([MESSAGES["oracle announcements 2"]])
    assert len(offer.oracles) == 2
    node.hear([say(WORKER, Choice(*HEAD, offer_id, (0,) * 4), 9)])
    assert len(node.asked(OpenLocks).terms.oracles) == 2


@pytest.mark.parametrize("stage", ["seeds", "locks", "offer", "opened"])
def test_what_is_not_paid_at_the_deadline_never_will_be(stage: str) -> None:
    if stage == "seeds":
        node = payer()
    elif stage == "locks":
        node = seeded(payer())
    elif stage == "offer":
        node, _, offer = offered()
    else:
        node, _, offer = opened()
    stale = [effect for effect in (*node.asks(Draw), *node.asks(DrawLocks), *node.asks(OpenLocks)) if effect.owner == KEY]
    node.past(LIMITS.commit_by)
    assert states(node) <= {P.FAILED}
    assert not [effect for kind in (Draw, DrawLocks, OpenLocks) for effect in node.asks(kind) if effect.owner.startswith("payer/")]
    # The shell may still have been at work on them.
    for effect in stale:
        if isinstance(effect, DrawLocks):
            node.ends(effect, locks.run(effect))
    if stage in ("offer", "opened"):
        node.hear([invoices(offer)])
    assert not node.asks(Pay)


def test_a_payment_that_was_begun_goes_on_after_the_deadline_the_result_and_a_halt() -> None:
    node, _, offer = opened()
    node.hear([invoices(offer)])
    node.past(LIMITS.commit_by)
    node.hear([say(COORDINATOR, EXAMPLES.announcement, 6)])
    assert node.run.halted
    assert len(node.asks(Pay)) == 4
    assert states(node) == {P.PAYING}
    for pay in node.asks(Pay):
        node.ends(pay, PayEnded(None))
    assert states(node) == {P.FAILED}


def test_a_halted_run_pays_nothing_more() -> None:
    node, _, offer = opened()
    node.hear([say(COORDINATOR, EXAMPLES.announcement, 6), invoices(offer)])
    assert not node.asks(Pay)
    assert states(node) == {P.FAILED}


# --- answers that do not fit ---------------------------------------------------------------------------------------------


def refused(node: Node, message: Message, reason: str) -> None:
    before = row(node)
    node.take(Received(message))
    assert reason in node.told("messages_refused")[-1]
    assert row(node) == before


@pytest.mark.parametrize("chosen", [(0, 0, 0), (0,) * 5, (0, 0, 0, 2), (0, 0, 0, -1), (1 << 61,) * 4, ()])
def test_a_choice_that_is_not_one_instance_a_level_is_refused(chosen: tuple[int, ...]) -> None:
    node, _, offer = offered()
    refused(node, say(WORKER, Choice(*HEAD, offer, chosen), 9), "is not one instance for each level")


def test_the_first_choice_is_the_only_one() -> None:
    node, openings, offer = opened((1, 0, 0, 1))
    node.hear([say(WORKER, Choice(*HEAD, offer, (0, 1, 1, 0)), 10)])
    assert row(node).chosen == (1, 0, 0, 1)
    assert not node.asks(OpenLocks)
    assert [message for message in node.speak() if isinstance(message.body, Openings)] == []
    assert len(openings.locks) == 4


def test_answers_to_no_offer_of_ours_are_refused() -> None:
    node, _, offer = offered()
    for party, answered in ((WORKERS[1], offer), (WORKER, EventId("0" * 64)), (Party("stranger"), offer)):
        refused(node, say(party, Choice(*HEAD, answered, (0,) * 4), 9), "answers no offer of ours")
    assert payer().hear([changed("choice", WORKER)]).told("messages_refused")


def test_invoices_before_the_openings_or_of_another_number_are_refused() -> None:
    node, _, offer = offered()
    refused(node, invoices(offer), "not one for each level that was opened")
    node, _, offer = opened()
    for count in (0, 3, 5):
        refused(node, invoices(offer, count), "not one for each level that was opened")
    refused(node, invoices(offer, by=WORKERS[1]), "answers no offer of ours")


def test_second_invoices_are_not_paid() -> None:
    node, _, offer = opened()
    node.hear([invoices(offer)])
    before = node.asks(Pay)
    node.hear([say(WORKER, Invoices(*HEAD, offer, ("other",) * 4), 12)])
    assert node.asks(Pay) == before


def test_nobody_is_paid_in_an_unpaid_run() -> None:
    settlement = msgspec.structs.replace(EXAMPLES.manifest.settlement, mode="none")
    node = payer()
    run = msgspec.structs.replace(node.run, manifest=msgspec.structs.replace(EXAMPLES.manifest, settlement=settlement))
    rows = {key: kept for key, kept in node.state.rows.items() if "payer/" not in key}
    node.state = type(node.state)({**rows, "run": run})
    node.at(9)
    assert not node.asks(Draw)


def test_only_the_runs_coordinator_pays() -> None:
    node = Node(WORKER, "worker").hear(ORACLES).ready().at(8)
    assert not [key for key in node.state.rows if key.startswith("payer/")]
    assert isinstance(MESSAGES["offer"].body, m.Offer)
