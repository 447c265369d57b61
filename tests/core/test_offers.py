"""What a payee checks of an offer and its openings before it risks any work."""

from __future__ import annotations

import msgspec
import pytest

from nostrain.core.effects import (
    Cancel,
    CheckLocks,
    Draw,
    Drawn,
    Failed,
    HoldInvoice,
)
from nostrain.core.escrow.rows import Payee
from nostrain.core.inputs import Received
from nostrain.core.rows import NodeState
from nostrain.daemon.runners import locks
from nostrain.protocol.messages import Message, Openings
from nostrain.units import Digest, EventId, Msat
from tests.core.actors import LABELS, LIMITS, MESSAGES, ROUND, Node, changed
from tests.core.payees import (
    CHOSEN,
    KEY,
    MSAT,
    Y,
    chosen,
    held,
    payee,
    row,
    states,
)
from tests.docs.examples import COORDINATOR, VALIDATORS, WORKERS, Party


def refused(node: Node, message: Message, reason: str) -> None:
    before = node.state.rows
    node.take(Received(message))
    assert reason in node.told("messages_refused")[-1]
    assert node.state.rows == before


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"amounts_msat": (Msat(1),) * 4}, "does not follow the manifest's schedule"),
        ({"amounts_msat": (MSAT,) * 3}, "does not follow the manifest's schedule"),
        ({"instances": MESSAGES["offer"].body.instances[:3]}, "does not follow the manifest's schedule"),  # type: ignore[union-attr]
        ({"instances": (("0" * 64, "0" * 64),) * 4}, "does not follow the manifest's schedule"),
        ({"instances": (("0" * 64,),) * 4}, "does not follow the manifest's schedule"),
        ({"oracles": MESSAGES["offer"].body.oracles[:1]}, "is bound to 1 different oracles"),  # type: ignore[union-attr]
        ({"oracles": MESSAGES["offer"].body.oracles[:1] * 3}, "is bound to 1 different oracles by 3 announcements"),  # type: ignore[union-attr]
        ({"payee": WORKERS[1].pubkey}, "not by the coordinator to us"),
    ],
)
def test_an_offer_that_is_not_what_the_manifest_promises_is_refused(changes: dict[str, object], reason: str) -> None:
    refused(payee(), changed("offer", COORDINATOR, **changes), reason)


def test_an_offer_by_anyone_but_the_coordinator_is_refused() -> None:
    for party in (WORKERS[1], VALIDATORS[0], Party("stranger")):
        refused(payee(), changed("offer", party), "not by the coordinator to us")


def test_an_offer_waits_for_the_round_and_its_oracles() -> None:
    node = payee("enrolment worker 2").hear([MESSAGES["offer"]])
    assert not node.has(KEY)
    node.hear(ROUND[LABELS.index("announcement") : LABELS.index("oracle announcements 2")])
    assert not node.has(KEY)
    node.hear([MESSAGES["oracle announcements 2"]])
    assert row(node).offer_id == MESSAGES["offer"].id


def test_an_offer_that_comes_too_late_is_left_alone() -> None:
    node = payee().past(LIMITS.commit_by).hear([MESSAGES["offer"]])
    assert not node.has(KEY)
    closed = payee("result").hear([MESSAGES["offer"]])
    assert not closed.has(KEY)


def test_the_first_offer_of_a_round_counts() -> None:
    node = chosen().hear([changed("offer", COORDINATOR, 30)])
    assert row(node).offer_id == MESSAGES["offer"].id
    assert len(node.asks(Draw)) == 0


def openings(**changes: object) -> Message:
    return changed("openings", COORDINATOR, 10, **changes)


def lies() -> list[tuple[str, Message]]:
    body = MESSAGES["openings"].body
    assert isinstance(body, Openings)
    first, second, *others = body.locks
    return [
        ("another instance's seed", openings(seeds=(("1" * 64,), *body.seeds[1:]))),
        ("a seed too many", openings(seeds=((*body.seeds[0], body.seeds[0][0]), *body.seeds[1:]))),
        ("locks swapped", openings(locks=(second, first, *others))),
        ("another payment hash", openings(locks=(msgspec.structs.replace(first, payment_hash=Digest("1" * 64)), second, *others))),
        ("a point that is none", openings(locks=(msgspec.structs.replace(first, ephemeral="02" + "f" * 64), second, *others))),
        ("a Feldman vector too short", openings(locks=(msgspec.structs.replace(first, feldman=first.feldman[:1]), second, *others))),
        ("a share less", openings(locks=(msgspec.structs.replace(first, shares=first.shares[:2]), second, *others))),
    ]


@pytest.mark.parametrize("lie", range(7))
def test_openings_that_do_not_stand_up_are_refused_as_fraud(lie: int) -> None:
    what, message = lies()[lie]
    node = chosen().hear([message])
    effect = node.asked(CheckLocks)
    outcome = locks.run(effect)
    assert isinstance(outcome, Failed), what
    node.ends(effect, outcome)
    assert node.told("offers_refused")
    assert states(node) == [Y.CANCELLED] * 4
    assert not node.asks(HoldInvoice)
    # The hashes are the payer's word alone: they may be those of other invoices of ours.
    assert not node.asks(Cancel)
    # Nor does a second, honest answer help: it has seen our choice.
    node.hear([MESSAGES["openings"]])
    assert not node.asks(CheckLocks)


def test_a_payment_hash_for_two_levels_is_refused_without_a_check() -> None:
    body = MESSAGES["openings"].body
    assert isinstance(body, Openings)
    node = chosen().hear([openings(locks=(body.locks[0],) * 4)])
    assert "names a payment hash twice" in node.told("offers_refused")[0]
    assert not node.asks(CheckLocks)


def test_a_payment_hash_of_another_round_is_refused() -> None:
    """Else the payer could have us cancel, or take for held, what belongs to another escrow."""
    node = held()
    other = msgspec.structs.replace(row(node), announcement=EventId("a" * 64))
    rows = {key: kept for key, kept in node.state.rows.items() if KEY not in key}
    elsewhere = msgspec.structs.replace(node.round, id=EventId("a" * 64))
    node.state = NodeState({**rows, f"payee/{'a' * 64}": other, f"round/{'a' * 64}": elsewhere})
    node.hear([MESSAGES["offer"]])
    node.ends(node.asked(Draw, "choice"), Drawn(CHOSEN))
    node.hear([MESSAGES["openings"]])
    assert "or one of another round" in node.told("offers_refused")[0]
    assert {level.state for level in node.row(f"payee/{'a' * 64}", Payee).levels} == {Y.HELD}
    assert not node.asks(Cancel)


@pytest.mark.parametrize("changes", [{"locks": ()}, {"seeds": ()}, {"offer": EventId("0" * 64)}])
def test_openings_of_something_else_are_refused(changes: dict[str, object]) -> None:
    reason = "of an offer that we did not answer" if "offer" in changes else "not one for each level"
    refused(chosen(), openings(**changes), reason)
    refused(chosen(), changed("openings", WORKERS[1]), "of an offer that we did not answer")
    refused(payee().hear([MESSAGES["offer"]]), MESSAGES["openings"], "of an offer that we did not answer")
