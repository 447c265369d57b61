"""What one hostile participant or stranger says, against everyone else's view: the round of the examples closes all the same.

Every test here was once a way to stop readers, to split their views, or to crash a node.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

import msgspec
import pytest

from nostrain.core import coordinator
from nostrain.core.escrow.payer import trusted
from nostrain.core.escrow.rows import Tickets, TicketSold
from nostrain.core.escrow.terms import oracles_of
from nostrain.core.listing import listed
from nostrain.core.rounds.speakers import MAX_ALTERNATIVES
from nostrain.core.rows import Lead, NodeState
from nostrain.core.transaction import Transaction
from nostrain.crypto import schnorr
from nostrain.errors import RemoteProtocolError
from nostrain.protocol import messages as m
from nostrain.protocol.limits import MAX_ENROLLED, MAX_VALIDATORS, MAX_WORKERS
from nostrain.protocol.manifest import BlobRef
from nostrain.units import Digest, EventId, Pubkey, UnixTime
from nostrain.wire import dlc
from nostrain.wire.messages import draft, oracle_item_untrusted, read_message_untrusted
from tests.core.actors import EXAMPLES, MESSAGES, ROUND
from tests.core.onlookers import NOW, Onlooker, event
from tests.docs.examples import COORDINATOR, ROUNDS, START, VALIDATORS, WORKERS, Party
from tests.docs.parties import b64


def closed(node: Onlooker) -> bool:
    return (node.run.round, node.run.halted, node.waiting) == (1, None, [])


def before(label: str, extra: Sequence[m.Message]) -> list[m.Message]:
    """The round, with `extra` heard just before the message of that label."""
    at = list(EXAMPLES.events).index(label)
    return [*ROUND[:at], *extra, *ROUND[at:]]


def instead(label: str, other: m.Message) -> list[m.Message]:
    return [other if message.id == MESSAGES[label].id else message for message in ROUND]


def says(party: Party, label: str, after: int = 50, **changes: object) -> m.Message:
    """The body of an example with `changes`, by `party`, through the wire."""
    body = msgspec.structs.replace(MESSAGES[label].body, **changes)
    return read_message_untrusted(event(party, body, after))


# --- participants that say two things ------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 4, MAX_ALTERNATIVES - 1])
def test_other_commitments_of_a_worker_split_no_view(count: int) -> None:
    others = [says(WORKERS[0], "commitment 0", 40, commitment=Digest(f"{n:064x}")) for n in range(count)]
    early, late = Onlooker().hear(before("commitment 0", others)), Onlooker().hear([*ROUND, *others])
    assert closed(early)
    assert closed(late)
    assert early.run.head == late.run.head


def test_a_coordinator_pins_nobody_who_committed_twice() -> None:
    other = says(WORKERS[0], "commitment 0", 40, commitment=Digest("0" * 64))
    node = Onlooker().hear(before("receipt", [other])[: list(EXAMPLES.events).index("receipt") + 1])
    tx = Transaction(node.state, UnixTime(EXAMPLES.deadlines.commit_by + 1))
    row = msgspec.structs.replace(node.round, receipt=None)
    tx.put(f"tickets/{row.id}", Tickets(row.id, {party.pubkey: TicketSold(1, Digest("00" * 32), Digest("00" * 32)) for party in WORKERS}))
    coordinator.collect_commitments(tx, node.run, row, Lead(announcement=row.id))
    said = tx.said(f"{row.id}/receipt")
    assert said is not None
    assert isinstance(said.body, m.Receipt)
    assert said.body.commitments == tuple(sorted(MESSAGES[f"commitment {n}"].id for n in (1, 2)))
    assert said.created_at == EXAMPLES.deadlines.commit_by


def test_two_attestations_of_a_validator_split_no_view() -> None:
    other = says(VALIDATORS[0], "attestation 0", 66, verdicts=MESSAGES["attestation 0"].body.verdicts[:2])  # type: ignore[union-attr]
    early, late = Onlooker().hear(before("attestation 0", [other])), Onlooker().hear([*ROUND, other])
    assert closed(early)
    assert closed(late)
    assert early.run.faulty.keys() == {VALIDATORS[0].pubkey}


def test_more_attestations_than_anyone_keeps_strand_nobody() -> None:
    others = [says(VALIDATORS[0], "attestation 0", 70 + n) for n in range(MAX_ALTERNATIVES)]
    node = Onlooker().hear(before("attestation 0", others))
    assert MESSAGES["attestation 0"].id not in node.round.attestations
    assert closed(node)


def rival(count: int = 4) -> m.OracleItem:
    """Another thermometer of the first validator for the first worker: with nonces that it announced for the second, or fewer of them."""
    item, donor = EXAMPLES.oracles[VALIDATORS[0].name][0], EXAMPLES.oracles[VALIDATORS[0].name][1]
    parsed = dlc.parse_announcement_untrusted(base64.b64decode(item.tlv))
    other = msgspec.structs.replace(parsed.event, nonces=donor.nonces[:count], descriptor=dlc.DigitDescriptor(count))
    signature = schnorr.sign(VALIDATORS[0].root.oracle_key(), dlc.announcement_message(other)).hex()
    return oracle_item_untrusted(item.payee, b64(dlc.encode_announcement(dlc.Announcement(signature, VALIDATORS[0].oracle, other))))


def test_two_thermometers_for_one_event_split_no_view_and_are_not_relied_on() -> None:
    other = says(VALIDATORS[0], "oracle announcements 0", 6, items=(rival(),))
    early, late = Onlooker().hear(before("oracle announcements 0", [other])), Onlooker().hear([*ROUND, other])
    assert closed(early)
    assert closed(late)
    for node in (early, late):
        assert node.run.faulty.keys() == {VALIDATORS[0].pubkey}
        assert [index for index, _ in oracles_of(node.run, node.round, WORKERS[0].pubkey)] == [1, 2, 3]
        assert [index for index, _ in trusted(node.run, node.round, WORKERS[0].pubkey)] == [2, 3]


def test_a_thermometer_with_too_few_digits_is_refused() -> None:
    node = Onlooker().hear(instead("oracle announcements 0", says(VALIDATORS[0], "oracle announcements 0", 6, items=(rival(1),))))
    assert "with 1 nonces for 4 levels" in node.refusals()
    assert VALIDATORS[0].pubkey not in node.round.oracles
    assert node.run.round == 1


def test_a_thermometer_of_another_maturity_is_refused() -> None:
    items = tuple(
        VALIDATORS[0].announces(item.event_id, 4, UnixTime(item.maturity + 1), item.payee) for item in EXAMPLES.oracles[VALIDATORS[0].name]
    )
    node = Onlooker().hear(instead("oracle announcements 0", says(VALIDATORS[0], "oracle announcements 0", 6, items=items)))
    assert "of another maturity than the end of the round" in node.refusals()


def test_an_enrolment_with_another_chain_splits_no_view() -> None:
    with pytest.raises(RemoteProtocolError, match="does not endorse"):
        says(VALIDATORS[0], "enrolment validator 0", 4, chain_length=ROUNDS + 1)
    signed = VALIDATORS[0].endorsement(EXAMPLES.run, ROUNDS + 1)
    other = says(VALIDATORS[0], "enrolment validator 0", 4, chain_length=ROUNDS + 1, endorsement=signed)
    early = Onlooker().hear(before("enrolment validator 0", [other]))
    assert closed(early)
    assert closed(Onlooker().hear([*ROUND, other]))
    assert "enrolment from" in early.refusals()


def test_a_round_needs_no_enrolments_to_be_believed() -> None:
    without = [message for message in ROUND if not isinstance(message.body, m.Enrolment)]
    assert closed(Onlooker().hear(without))


def test_two_verdict_hashes_of_a_validator_split_no_view() -> None:
    other = says(VALIDATORS[0], "verdict hash 0", 61, digest=Digest("0" * 64))
    node = Onlooker().hear(before("verdict hash 0", [other]))
    assert closed(node)
    assert VALIDATORS[0].pubkey in node.run.faulty


def test_a_second_reveal_with_other_urls_changes_nothing() -> None:
    blob = EXAMPLES.deltas[0]
    other = says(WORKERS[0], "reveal 0", 47, blob=BlobRef(blob.sha256, blob.size, ("http://10.0.0.1/",)))
    assert closed(Onlooker().hear([*ROUND, other]))
    assert closed(Onlooker().hear(before("reveal 0", [other])))


# --- announcements that cannot be ----------------------------------------------------------------------------------------


def doubled(entries: tuple[m.ValidatorEntry, ...]) -> tuple[m.ValidatorEntry, ...]:
    """A second Nostr key, endorsed by the oracle of the first validator."""
    twin = Party("twin")
    twin.root = VALIDATORS[0].root
    entry = msgspec.structs.replace(entries[0], pubkey=twin.pubkey, endorsement=twin.endorsement(EXAMPLES.run))
    return tuple(sorted((*entries, entry), key=lambda one: one.pubkey))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"deadlines": msgspec.structs.replace(EXAMPLES.deadlines, attest_by=UnixTime(START + 5))}, "its deadlines are not those"),
        ({"deadlines": msgspec.structs.replace(EXAMPLES.deadlines, commit_by=UnixTime(1 << 39))}, "its deadlines are not those"),
        ({"state_id": Digest("0" * 64)}, "opens on state 00000000, the chain stands on"),
        ({"round": 2}, "round 2 after round 0 of 8"),
        ({"round": 0}, "round 0 after round 0 of 8"),
        ({"workers": EXAMPLES.announcement.workers[::-1]}, "not sorted"),
        ({"workers": EXAMPLES.announcement.workers[:1] * 2}, "or repeat a key"),
        ({"workers": ()}, "0 workers and 3 validators"),
        ({"workers": tuple(Pubkey(f"{n:064x}") for n in range(MAX_WORKERS + 1))}, "21 workers and 3 validators"),
        ({"workers": tuple(Pubkey(f"{n:064x}") for n in range(9))}, "9 workers and 3 validators"),
        ({"workers": (VALIDATORS[0].pubkey,)}, "someone as worker and validator"),
        ({"validators": EXAMPLES.announcement.validators[:1]}, "3 workers and 1 validators"),
        ({"validators": doubled(EXAMPLES.announcement.validators)}, "two of its validators have one oracle key"),
    ],
)
def test_an_announcement_that_cannot_be_is_refused(changes: dict[str, object], reason: str) -> None:
    node = Onlooker().hear([*ROUND[:7], says(COORDINATOR, "announcement", 5, **changes)])
    assert reason in node.refusals()
    assert node.run.open is None


# --- blobs, sizes, crowds ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [-1, 0, (1 << 40) + 1])
def test_a_reveal_of_an_impossible_size_is_refused_by_the_wire(size: int) -> None:
    with pytest.raises(RemoteProtocolError, match=f"blob.size is {size}"):
        says(WORKERS[0], "reveal 0", 46, blob=BlobRef(EXAMPLES.deltas[0].sha256, size))


def test_a_reveal_larger_than_the_run_allows_is_refused() -> None:
    large = BlobRef(EXAMPLES.deltas[0].sha256, EXAMPLES.manifest.max_delta_bytes + 1)
    node = Onlooker().hear(instead("reveal 0", says(WORKERS[0], "reveal 0", 46, blob=large)))
    assert "promises 1048577 bytes, 1048576 is the limit" in node.refusals()
    assert WORKERS[0].pubkey not in node.round.reveals


def test_urls_cannot_make_a_result_too_large() -> None:
    urls = tuple(f"http://h.example/{n:0200d}" for n in range(55))
    with pytest.raises(RemoteProtocolError, match=r"blob\.urls are more than 4"):
        says(WORKERS[0], "reveal 0", 46, blob=BlobRef(EXAMPLES.deltas[0].sha256, EXAMPLES.deltas[0].size, urls))
    entry = coordinator.entry(Onlooker().hear(ROUND).round, WORKERS[0].pubkey, 65_536, 4)
    assert entry.delta.urls == ()


def test_a_crowd_of_newcomers_does_not_outgrow_an_announcement_nor_displace_anyone() -> None:
    body = m.Enrolment(run=EXAMPLES.run, role="worker", name="w")
    crowd = [m.Message(EventId(f"{n:064x}"), Pubkey(f"{n:064x}"), START, body) for n in range(1, 231)]
    node = Onlooker(COORDINATOR.pubkey).hear([*ROUND, *crowd])
    workers, validators = listed(Transaction(node.state, NOW), node.run)
    assert len(node.run.enrolled) == 236
    assert len(workers) == EXAMPLES.manifest.places == 8, "no more than the pool is meant for"
    assert {party.pubkey for party in WORKERS} <= set(workers)
    assert {entry.pubkey for entry in validators} == {party.pubkey for party in VALIDATORS}
    announcement = msgspec.structs.replace(EXAMPLES.announcement, workers=workers, validators=validators)
    assert draft(announcement, NOW).created_at == NOW


def test_no_more_enrol_than_anyone_remembers() -> None:
    body = m.Enrolment(run=EXAMPLES.run, role="worker", name="w")
    full = Onlooker().hear(ROUND[:1])
    enrolled = {Pubkey(f"{n:064x}"): (EventId(f"{n:064x}"), START, body) for n in range(MAX_ENROLLED)}
    full.state = NodeState({**full.state.rows, "run": msgspec.structs.replace(full.run, enrolled=enrolled)})
    full.hear([MESSAGES["enrolment worker 0"]])
    assert len(full.run.enrolled) == MAX_ENROLLED
    assert "1024 have enrolled already" in full.refusals()


def test_too_many_validators_are_not_listed() -> None:
    node = Onlooker(COORDINATOR.pubkey).hear(ROUND)
    more = {}
    for n in range(MAX_VALIDATORS):
        said = msgspec.structs.replace(MESSAGES["enrolment validator 0"].body, oracle=Pubkey(f"{n:064x}"))
        more[Pubkey(f"{n:064x}")] = (EventId(f"{n:064x}"), START, said)
    run = msgspec.structs.replace(node.run, enrolled={**node.run.enrolled, **more})
    _, validators = listed(Transaction(node.state, NOW), run)
    assert len(validators) == MAX_VALIDATORS
    assert {party.pubkey for party in VALIDATORS} <= {entry.pubkey for entry in validators}
