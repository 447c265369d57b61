"""Proofs as bytes, and proofs that prove nothing."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nostrain.audit.evidence import read_evidence
from nostrain.audit.proof import MAX_BYTES, SEARCHES, Proof, check_proof, encode_proof, find_proofs, parse_proof_untrusted
from nostrain.errors import RemoteProtocolError
from nostrain.protocol.event import Draft
from nostrain.protocol.limits import MAX_EVIDENCE
from nostrain.protocol.messages import ProofKind
from nostrain.units import Pubkey, UnixTime
from nostrain.wire.messages import read_message_untrusted
from tests.docs.examples import COORDINATOR, WORKERS

from .fraud_world import PUBLIC, ROUND, flipped, made, only

EVENTS = (*PUBLIC, *made(only(1, flipped(1))), COORDINATOR.says(read_message_untrusted(ROUND.events["receipt"]).body, 1))
PROOFS = find_proofs(EVENTS)


def test_the_material_holds_two_proofs() -> None:
    assert [proof.kind for proof in PROOFS] == ["equivocation", "false_offer"]
    assert set(get_args(ProofKind)) == set(SEARCHES)


@pytest.mark.parametrize("proof", PROOFS, ids=lambda proof: proof.kind)
def test_only_what_is_claimed_and_of_whom_it_is_claimed_is_shown(proof: Proof) -> None:
    assert check_proof(proof).startswith(f"{proof.kind}: {COORDINATOR.pubkey} ")
    for kind in SEARCHES:
        if kind != proof.kind:
            with pytest.raises(RemoteProtocolError, match=f"do not show any {kind}"):
                check_proof(msgspec.structs.replace(proof, kind=kind))
    with pytest.raises(RemoteProtocolError, match="do not show"):
        check_proof(msgspec.structs.replace(proof, accused=WORKERS[0].pubkey))


@pytest.mark.parametrize("proof", PROOFS, ids=lambda proof: proof.kind)
@pytest.mark.parametrize(
    "change", [{"content": "{}"}, {"sig": "00" * 64}, {"pubkey": WORKERS[0].pubkey}, {"id": "00" * 32}, {"created_at": 5}]
)
def test_events_that_are_not_signed_as_they_stand_are_refused(proof: Proof, change: dict[str, Any]) -> None:
    for index in range(len(proof.events)):
        altered = msgspec.structs.replace(proof.events[index], **change)
        events = (*proof.events[:index], altered, *proof.events[index + 1 :])
        with pytest.raises(RemoteProtocolError, match="are not valid"):
            check_proof(msgspec.structs.replace(proof, events=events))


def test_an_empty_or_endless_proof_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="its 0 events"):
        check_proof(Proof("equivocation", COORDINATOR.pubkey, ()))
    with pytest.raises(RemoteProtocolError, match="at most"):
        check_proof(Proof("equivocation", COORDINATOR.pubkey, (PROOFS[0].events[0],) * (MAX_EVIDENCE + 1)))


def test_one_event_twice_is_no_contradiction() -> None:
    event = PROOFS[0].events[0]
    with pytest.raises(RemoteProtocolError, match="do not show"):
        check_proof(Proof("equivocation", Pubkey(event.pubkey), (event, event)))


def test_unreadable_events_are_counted_not_believed() -> None:
    note = COORDINATOR.signer.sign(Draft(UnixTime(1), 1, (), "hi"))
    evidence = read_evidence((*PUBLIC, note, msgspec.structs.replace(PUBLIC[0], content="x")))
    assert evidence.unread == 2
    assert len(evidence.said) == len(PUBLIC) - 1, "the altered copy hides the event of the same id"


GOOD = encode_proof(PROOFS[0])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        b" " * (MAX_BYTES + 1),
        GOOD.replace(b'"kind":"equivocation"', b'"kind":"treason"'),
        GOOD.replace(b'"v":1', b'"v":2'),
        GOOD.replace(f'"accused":"{COORDINATOR.pubkey}"'.encode(), b'"accused":"me"'),
        GOOD.replace(b'"created_at":', b'"created_at":99999999999999999999999999999'),
    ],
)
def test_bytes_that_are_no_proof(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        check_proof(parse_proof_untrusted(data))


@given(data=st.data())
@settings(max_examples=60)
def test_altered_bytes_never_prove_anything_else(data: st.DataObject) -> None:
    altered = bytearray(GOOD)
    at = data.draw(st.integers(0, len(altered) - 1))
    altered[at] = data.draw(st.integers(0, 255))
    try:
        shown = check_proof(parse_proof_untrusted(bytes(altered)))
    except RemoteProtocolError:
        return
    assert shown == check_proof(PROOFS[0])
