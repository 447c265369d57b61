"""False offers: every way in which a payer can cheat is proved by the events alone, and an honest payer cannot be framed."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from nostrain.audit.proof import Proof, check_proof, encode_proof, find_proofs, parse_proof_untrusted
from nostrain.errors import RemoteProtocolError
from nostrain.protocol import messages as m
from nostrain.protocol.event import Event
from nostrain.units import Digest
from nostrain.wire.messages import read_message_untrusted
from tests.docs.examples import COORDINATOR, START, VALIDATORS, WORKERS

from .fraud_world import CHOSEN, PAYEE, PUBLIC, ROUND, Bend, attested, flipped, made, only, relayed, without, wrong_preimage

HEAD = (ROUND.run, ROUND.round_id, 1)


def the_proof(events: tuple[Event, ...]) -> Proof:
    """The one proof that the events hold, as a stranger gets it."""
    (proof,) = find_proofs(events)
    assert proof.accused == COORDINATOR.pubkey
    assert parse_proof_untrusted(encode_proof(proof)) == proof
    return proof


def test_an_honest_round_proves_nothing() -> None:
    assert find_proofs((*PUBLIC, *ROUND.private.values())) == []
    assert find_proofs((*PUBLIC, *made())) == []


@pytest.mark.parametrize("level", [1, 2, 3, 4])
@pytest.mark.parametrize("share", [1, 3])
def test_a_share_off_the_polynomial(level: int, share: int) -> None:
    proof = the_proof((*PUBLIC, *made(only(level, flipped(share)))))
    assert f"level {level}: share of oracle {share} does not lie" in check_proof(proof)
    kinds = [type(read_message_untrusted(event).body).__name__ for event in proof.events]
    assert kinds == ["RunManifest", "Announcement", *["OracleAnnouncements"] * 3, "Offer", "Openings", "Attestation"]


def test_a_preimage_that_does_not_fit() -> None:
    proof = the_proof((*PUBLIC, *made(only(2, lambda _: wrong_preimage(2)))))
    assert "level 2: its 2 verified shares do not give the preimage" in check_proof(proof)


def cut(lock: Any) -> Any:
    return msgspec.structs.replace(lock, feldman=lock.feldman[:-1])


def unordered(lock: Any) -> Any:
    return msgspec.structs.replace(lock, shares=lock.shares[::-1])


def off_the_curve(lock: Any) -> Any:
    return msgspec.structs.replace(lock, ephemeral="02" + "ff" * 32)


@pytest.mark.parametrize(("change", "reason"), [(cut, "1 Feldman"), (unordered, "shares for"), (off_the_curve, "not on the curve")])
def test_a_lock_that_is_none(change: Any, reason: str) -> None:
    proof = the_proof((*PUBLIC, *made(only(3, change))))
    assert reason in check_proof(proof)
    assert len(proof.events) == 7, "no attestation is needed"


def test_a_seed_that_gives_another_instance() -> None:
    assert "level 4: an instance is not what its seed gives" in check_proof(the_proof((*PUBLIC, *made(spoil_seed=(4, 0)))))


def test_a_seed_that_is_withheld() -> None:
    openings: Any = read_message_untrusted(made()[1]).body
    short = (*openings.seeds[:3], openings.seeds[3][:-1])
    assert "an instance is not" in check_proof(the_proof((*PUBLIC, *made(openings_changes={"seeds": short}))))


def test_a_lock_that_was_not_committed_to() -> None:
    openings: Any = read_message_untrusted(made()[1]).body
    swapped = (openings.locks[1], *openings.locks[1:])
    assert "the lock of level 1 is none of those" in check_proof(the_proof((*PUBLIC, *made(openings_changes={"locks": swapped}))))
    nonsense = (msgspec.structs.replace(openings.locks[0], ephemeral="zz"), *openings.locks[1:])
    assert "the lock of level 1 is none of those" in check_proof(the_proof((*PUBLIC, *made(openings_changes={"locks": nonsense}))))
    huge = (msgspec.structs.replace(openings.locks[0], shares=((-1, "00" * 32),)), *openings.locks[1:])
    assert "the lock of level 1 is none of those" in check_proof(the_proof((*PUBLIC, *made(openings_changes={"locks": huge}))))


def test_fewer_locks_than_levels() -> None:
    openings: Any = read_message_untrusted(made()[1]).body
    proof = the_proof((*PUBLIC, *made(openings_changes={"locks": openings.locks[:3]})))
    assert "opened 3 locks for 4 levels" in check_proof(proof)


@pytest.mark.parametrize("network", ["bitcoin", "signet", "simnet"])
def test_on_any_network(network: str) -> None:
    assert find_proofs((*PUBLIC, *made(network=network))) == []
    the_proof((*PUBLIC, *made(only(1, flipped(1)), network=network)))


BENT = made(only(1, flipped(1)))
WHOLE = the_proof((*PUBLIC, *BENT))


@pytest.mark.parametrize("missing", range(8))
def test_every_event_of_the_proof_is_needed(missing: int) -> None:
    events = (*WHOLE.events[:missing], *WHOLE.events[missing + 1 :])
    with pytest.raises(RemoteProtocolError, match="do not show any false_offer"):
        check_proof(msgspec.structs.replace(WHOLE, events=events))


def test_before_the_attestations_the_offer_cannot_be_told_from_an_honest_one() -> None:
    assert find_proofs((*without(PUBLIC, *(f"attestation {n}" for n in range(3))), *BENT)) == []


@pytest.mark.parametrize("bend", [only(4, flipped(1)), only(4, lambda _: wrong_preimage(4))])
def test_attestations_below_the_level_open_nothing(bend: Bend) -> None:
    told = [attested([party.attests(ROUND.oracles[party.name][0], (1, 1, 1, 0))], by=party) for party in VALIDATORS]
    public = without(PUBLIC, *(f"attestation {n}" for n in range(3)))
    assert [proof for proof in find_proofs((*public, *told, *made(bend))) if proof.kind == "false_offer"] == []


def test_one_attestation_too_few_leaves_the_preimage_unknown() -> None:
    events = (*PUBLIC, *made(only(1, lambda _: wrong_preimage(1))))
    assert find_proofs(without(events, "attestation 0", "attestation 1")) == []
    assert len(find_proofs(without(events, "attestation 0"))) == 1


def test_an_unknown_network_proves_nothing() -> None:
    assert find_proofs((*PUBLIC, *made(only(1, flipped(1)), network="another"))) == []
    assert find_proofs((*PUBLIC, *made(network="another"))) == []


def test_an_honest_payer_is_not_framed_by_its_payee() -> None:
    offer, openings = made()
    payee = WORKERS[0]
    lies = [
        payee.says(m.Choice(*HEAD, offer.id, tuple((index + 1) % 4 for index in CHOSEN)), START + 9),
        payee.says(msgspec.structs.replace(read_message_untrusted(made(only(1, flipped(1)))[1]).body, offer=offer.id), START + 10),
        payee.says(read_message_untrusted(BENT[0]).body, START + 8),
        payee.says(read_message_untrusted(BENT[1]).body, START + 8),
    ]
    assert find_proofs((*PUBLIC, offer, openings, *lies)) == []


def test_an_honest_payer_is_not_framed_by_oracles() -> None:
    """Announcements and attestations of other events, republished by anyone, under any name."""
    others = [party.announces(f"nostrain/1/{'ab' * 32}/{PAYEE}/0", 4, ROUND.deadlines.attest_by, PAYEE) for party in VALIDATORS]
    made_up = [attested([party.attests(item, (1, 1, 1, 1))], by=WORKERS[1]) for party, item in zip(VALIDATORS, others, strict=True)]
    elsewhere = [relayed(ROUND.oracles[party.name], by=WORKERS[1], payee=WORKERS[2].pubkey) for party in VALIDATORS]
    found = find_proofs((*PUBLIC, *made(), relayed(others, by=WORKERS[2]), *made_up, *elsewhere))
    assert {(proof.kind, proof.accused) for proof in found} == {("equivocation", WORKERS[1].pubkey)}, "who republishes contradicts itself"


def test_other_peoples_offers_are_no_offers_of_the_run() -> None:
    events = made(only(1, flipped(1)), payer=WORKERS[2])
    assert find_proofs((*PUBLIC, *events)) == []


def test_offers_that_make_no_sense_are_no_proof() -> None:
    for changes in (
        {"amounts_msat": (0, 0, 0, 0)},
        {"amounts_msat": (1,)},
        {"oracles": ()},
        {"oracles": (Digest("ab" * 32),)},
        {"oracles": (ROUND.oracles[VALIDATORS[0].name][0].digest,) * 2},
        {"announcement": Digest("ab" * 32)},
        {"announcement": ROUND.run},
        {"run": ROUND.round_id},
        {"payee": Digest("ff" * 32)},
    ):
        events = made(only(1, flipped(1)), offer_changes=changes)
        for proof in find_proofs((*PUBLIC, *events)):
            assert proof.kind != "false_offer", changes


def test_offers_with_a_manifest_that_makes_no_sense() -> None:
    base: Any = read_message_untrusted(ROUND.events["manifest"]).body
    for threshold in (0, 4, -1):
        manifest = COORDINATOR.says(msgspec.structs.replace(base, threshold=threshold), START)
        announcement = COORDINATOR.says(_moved(ROUND.events["announcement"], manifest), START + 5)
        changes = {"run": manifest.id, "announcement": announcement.id}
        events = made(only(1, flipped(1)), offer_changes=changes, openings_changes=changes)
        assert find_proofs((*PUBLIC, manifest, announcement, *events)) == []


def _moved(event: Event, manifest: Event) -> Any:
    """The announcement in another run, with the endorsements that this takes."""
    body: Any = read_message_untrusted(event).body
    entries = tuple(sorted((party.entry(manifest.id) for party in VALIDATORS), key=lambda entry: entry.pubkey))
    return msgspec.structs.replace(body, run=manifest.id, parent=manifest.id, validators=entries)


def test_tlvs_are_what_binds_not_their_wrapping() -> None:
    """The oracle announcements may be shown in any event that carries them."""
    public = without(PUBLIC, *(f"oracle announcements {n}" for n in range(3)))
    shown = relayed([ROUND.oracles[party.name][0] for party in VALIDATORS], by=WORKERS[1])
    proof = the_proof((*public, shown, *BENT))
    assert "share of oracle 1" in check_proof(proof)
