"""More alternatives of one author than anyone keeps, shown to some first: what a receipt, a result or an offer names is asked for, and taken."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import msgspec
import pytest

from nostrain.core.escrow.rows import Payee
from nostrain.core.rounds.named import MAX_WANTED, Wanted, wanted
from nostrain.core.rounds.speakers import MAX_ALTERNATIVES
from nostrain.core.rounds.thermometers import MAX_ATTESTATIONS
from nostrain.core.rows import Round
from nostrain.crypto import schnorr
from nostrain.protocol import messages as m
from nostrain.units import Digest, EventId
from nostrain.wire import dlc
from nostrain.wire.messages import oracle_item_untrusted, read_message_untrusted
from tests.core.actors import EXAMPLES, MESSAGES, ROUND, Node
from tests.core.onlookers import Onlooker, event
from tests.docs.examples import COORDINATOR, START, VALIDATORS, WORKERS, Party
from tests.docs.parties import b64

LABELS = list(EXAMPLES.events)


def says(party: Party, label: str, after: int, **changes: object) -> m.Message:
    return read_message_untrusted(event(party, msgspec.structs.replace(MESSAGES[label].body, **changes), after))


def until(label: str) -> list[m.Message]:
    """The round up to that message, which is not heard."""
    return ROUND[: LABELS.index(label)]


def commitments(count: int) -> list[m.Message]:
    """Others of the first worker."""
    return [says(WORKERS[0], "commitment 0", 40, commitment=Digest(f"{n:064x}")) for n in range(count)]


def stranded(*, also: Sequence[m.Message] = ()) -> Onlooker:
    """Somebody to whom the first worker showed as many other commitments as anyone keeps, before the one that the receipt pins."""
    return Onlooker().hear([*until("commitment 0"), *commitments(MAX_ALTERNATIVES), *also, *ROUND[LABELS.index("commitment 0") :]])


def test_a_reader_who_was_shown_64_others_first_waits_for_the_commitment_that_is_pinned() -> None:
    node = stranded()
    pinned = MESSAGES["commitment 0"].id
    assert "more than 64 in one round" in node.refusals()
    assert node.run.round == 0, "it waits"
    assert pinned not in node.round.commitments
    assert wanted(node.state).ids == (pinned,)


def test_it_is_taken_when_it_is_heard_again_and_the_round_closes() -> None:
    node = stranded().hear([MESSAGES["commitment 0"]])
    assert (node.run.round, node.run.halted, node.waiting) == (1, None, [])
    assert wanted(node.state) == Wanted()
    assert node.run.head == Onlooker().hear(ROUND).run.head


def test_no_other_is_taken_and_memory_stays_bounded() -> None:
    node = stranded().hear(commitments(3 * MAX_ALTERNATIVES)[MAX_ALTERNATIVES:])
    assert len(node.round.commitments) == MAX_ALTERNATIVES + len(WORKERS) - 1


def test_a_coordinator_that_pins_without_end_is_believed_within_bounds() -> None:
    others = commitments(4 * MAX_ALTERNATIVES)
    receipts = [says(COORDINATOR, "receipt", 45, commitments=(other.id, EventId(f"{n:064x}"))) for n, other in enumerate(others)]
    node = Onlooker().hear([*until("commitment 0"), *receipts, *others])
    assert len(node.round.commitments) == 2 * MAX_ALTERNATIVES
    asked = wanted(node.state)
    assert len(asked.ids) == MAX_WANTED


def test_what_strangers_wait_for_is_not_asked_for() -> None:
    body = msgspec.structs.replace(MESSAGES["receipt"].body, commitments=(EventId("ab" * 32),))
    node = Onlooker().hear([*until("receipt"), m.Message(EventId("cd" * 32), WORKERS[0].pubkey, START, body)])
    assert wanted(node.state) == Wanted()


@pytest.mark.parametrize("label", ["announcement", "receipt", "attestation 0"])
def test_whatever_the_coordinator_builds_on_is_asked_for(label: str) -> None:
    missing = MESSAGES[label].id
    node = Onlooker().hear(message for message in ROUND if message.id != missing)
    asked = wanted(node.state)
    if label == "receipt":
        assert asked == Wanted(), "nothing of the coordinator's names it"
    elif label == "attestation 0":
        assert (node.run.round, asked) == (1, Wanted()), "the others are enough"
    else:
        assert asked.ids == (missing,)


def flood_of_attestations() -> list[m.Message]:
    return [says(VALIDATORS[0], "attestation 0", 70 + n) for n in range(MAX_ATTESTATIONS)]


def test_a_cited_attestation_is_asked_for_when_it_makes_the_difference() -> None:
    """One validator is silent towards us, another one floods us: without its attestation, of three, there are too few."""
    silent = MESSAGES["attestation 2"].id
    heard = [
        *until("attestation 0"),
        *flood_of_attestations(),
        *(one for one in ROUND[LABELS.index("attestation 0") :] if one.id != silent),
    ]
    node = Onlooker().hear(heard)
    assert node.run.round == 0, "it waits"
    assert wanted(node.state).ids == tuple(sorted((MESSAGES["attestation 0"].id, silent)))
    node.hear([MESSAGES["attestation 0"]])
    assert (node.run.round, node.run.halted) == (1, None)


def other_thermometers(count: int) -> list[m.Message]:
    """Others of the first validator, of other nonces, for the first worker's event."""
    item = EXAMPLES.oracles[VALIDATORS[0].name][0]
    parsed = dlc.parse_announcement_untrusted(base64.b64decode(item.tlv))
    found = []
    for n in range(count):
        nonces = tuple(schnorr.public_key(bytes([1 + level, n + 1]) * 16).hex() for level in range(len(item.nonces)))
        other = msgspec.structs.replace(parsed.event, nonces=nonces)
        signature = schnorr.sign(VALIDATORS[0].root.oracle_key(), dlc.announcement_message(other)).hex()
        tlv = b64(dlc.encode_announcement(dlc.Announcement(signature, VALIDATORS[0].oracle, other)))
        found.append(says(VALIDATORS[0], "oracle announcements 0", 6, items=(oracle_item_untrusted(item.payee, tlv),)))
    return found


def test_an_offer_that_is_bound_to_a_thermometer_beyond_the_bound_waits_until_it_is_heard_again() -> None:
    """Its two other oracles are enough, once the payee can see what it is bound to."""
    node = Node(WORKERS[0], "worker")
    node.hear(
        [*until("oracle announcements 0"), *other_thermometers(MAX_ALTERNATIVES), *ROUND[LABELS.index("oracle announcements 0") :][:3]]
    ).block()
    node.at(8).hear([MESSAGES["offer"]])
    key = f"payee/{EXAMPLES.round_id}"
    assert key not in node.state.rows, "it waits"
    assert wanted(node.state) == Wanted((), (EXAMPLES.round_id,))
    node.hear([*other_thermometers(MAX_ALTERNATIVES + 9), MESSAGES["oracle announcements 0"]])
    assert node.row(key, Payee).offer_id == MESSAGES["offer"].id
    assert wanted(node.state) == Wanted()
    kept = node.row(f"round/{EXAMPLES.round_id}", Round).oracles[VALIDATORS[0].pubkey]
    of_us = [item for item in kept.values() if item.payee == WORKERS[0].pubkey]
    assert len(of_us) == MAX_ALTERNATIVES + 1


def test_an_attestation_on_a_thermometer_beyond_the_bound_is_taken_when_it_is_cited_and_makes_the_difference() -> None:
    silent = MESSAGES["attestation 2"].id
    at = LABELS.index("oracle announcements 0")
    node = Onlooker().hear([*ROUND[:at], *other_thermometers(MAX_ALTERNATIVES), *(one for one in ROUND[at:] if one.id != silent)])
    assert node.run.round == 0, "it waits"
    assert wanted(node.state) == Wanted((silent,), (EXAMPLES.round_id,))
    node.hear([MESSAGES["oracle announcements 0"]])
    assert (node.run.round, node.run.halted) == (1, None)
