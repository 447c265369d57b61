"""Void results and attestations that do not follow, from the examples' round with one word of it changed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from nostrain.audit.dispute import check_dispute, find_dispute
from nostrain.audit.proof import Proof, check_proof, find_proofs
from nostrain.crypto.lock import LevelLock
from nostrain.errors import RemoteProtocolError
from nostrain.protocol import messages as m
from nostrain.protocol.event import Event
from nostrain.units import Digest, EventId, Ppm
from nostrain.wire.messages import read_message_untrusted
from tests.docs.examples import COORDINATOR, START, VALIDATORS, Party

from .fraud_world import CHOSEN, PUBLIC, ROUND, flipped, made, only, without

LIAR = VALIDATORS[2]
ACCEPTED = read_message_untrusted(ROUND.events["result"]).body.accepted  # type: ignore[union-attr]


def reworded(label: str, by: Party = COORDINATOR, **changes: Any) -> tuple[Event, ...]:
    """The round with one event said differently."""
    body = msgspec.structs.replace(read_message_untrusted(ROUND.events[label]).body, **changes)
    return (*without(PUBLIC, label), by.says(body, START + 70))


def found(events: Sequence[Event], kind: str) -> list[Proof]:
    return [proof for proof in find_proofs(events) if proof.kind == kind]


def with_first(**changes: Any) -> tuple[m.Accepted, ...]:
    return (msgspec.structs.replace(ACCEPTED[0], **changes), *ACCEPTED[1:])


def test_the_honest_round_proves_nothing() -> None:
    assert find_proofs(PUBLIC) == []


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"attestations": ()}, "is attested by 0 of the validators that it cites"),
        ({"accepted": with_first(level=5)}, "level 5 of .* is none"),
        ({"accepted": with_first(level=0)}, "level 0 of .* is none"),
        ({"accepted": ACCEPTED[::-1]}, "is not sorted"),
        ({"accepted": ()}, "uses no work but changes the state"),
        ({"committed": 2}, "divides by 2, 3 commitments are pinned"),
        ({"state_id": Digest("1" * 64)}, "does not follow from the deltas and weights"),
        ({"accepted": with_first(weight=1)}, "does not follow from the deltas and weights"),
        ({"accepted": with_first(weight=-1)}, "a weight, or the number of commitments, is none"),
    ],
    ids=range(9),
)
def test_a_void_result(changes: dict[str, Any], text: str) -> None:
    (proof,) = found(reworded("result", **changes), "void_result")
    assert proof.accused == COORDINATOR.pubkey
    assert re.search(text, check_proof(proof))


def test_too_few_attestations_is_a_proof_only_with_all_that_are_cited() -> None:
    body = read_message_untrusted(ROUND.events["result"]).body
    assert isinstance(body, m.Result)
    one = reworded("result", attestations=(ROUND.events["attestation 0"].id,))
    assert len(found(one, "void_result")) == 1
    unknown = reworded("result", attestations=(ROUND.events["attestation 0"].id, EventId("f" * 64)))
    assert found(unknown, "void_result") == []
    assert found(without(PUBLIC, "attestation 0", "attestation 1", "attestation 2"), "void_result") == []


def test_an_empty_round_that_stays_is_no_offence() -> None:
    assert found(reworded("result", accepted=(), attestations=(), state_id=ROUND.state_id), "void_result") == []


def test_a_result_by_somebody_else_is_nobodys() -> None:
    assert found(reworded("result", LIAR, attestations=()), "void_result") == []


def attesting(digits: tuple[int, ...], **changes: Any) -> tuple[Event, ...]:
    """The round in which the liar attests `digits` for everyone."""
    items = tuple(LIAR.attests(item, digits) for item in ROUND.oracles[LIAR.name])
    return reworded("attestation 2", LIAR, items=items, **changes)


def test_levels_that_do_not_follow() -> None:
    (proof,) = found(attesting((1, 0, 0, 0)), "unfounded_attestation")
    assert proof.accused == LIAR.pubkey
    assert "its verdicts give level" in check_proof(proof)


@pytest.mark.parametrize("named", [(), ("verdict 0",), ("verdict 0", "verdict hash 1")])
def test_verdicts_that_are_too_few_or_none(named: tuple[str, ...]) -> None:
    ids = tuple(sorted(ROUND.events[label].id for label in named))
    (proof,) = found(reworded("attestation 2", LIAR, verdicts=ids), "unfounded_attestation")
    assert proof.accused == LIAR.pubkey


def test_nothing_is_proved_of_strangers_or_while_a_verdict_is_missing_or_history_counts() -> None:
    assert found((*PUBLIC, attesting((1, 0, 0, 0))[-1]), "unfounded_attestation") != []
    assert found(without(attesting((1, 0, 0, 0)), "verdict 1"), "unfounded_attestation") == []
    assert found(reworded("attestation 2", Party("stranger"), verdicts=()), "unfounded_attestation") == []
    assert found(without(attesting((1, 0, 0, 0)), "manifest"), "unfounded_attestation") == []


def test_a_manifest_of_absurd_rules_breaks_nothing() -> None:
    """Whoever accuses may have made it all up, the run too."""
    scoring = msgspec.structs.replace(ROUND.manifest.scoring, floor_nanonats=0, levels_ppm=(Ppm(0),))
    manifest = LIAR.says(msgspec.structs.replace(ROUND.manifest, scoring=scoring), START)
    announced = LIAR.says(msgspec.structs.replace(ROUND.announcement, run=manifest.id, validators=()), START + 1)
    assert find_proofs((manifest, announced, *attesting((1, 0, 0, 0)))) == find_proofs(attesting((1, 0, 0, 0)))


def test_two_levels_on_one_hash_are_a_false_offer() -> None:
    """One preimage would pay for one level and open two."""
    hashes: list[Digest] = []

    def bend(level: int, index: int, drawn: LevelLock) -> LevelLock:
        if index == CHOSEN[level - 1] and level in (1, 2):
            hashes.append(drawn.payment_hash)
            return msgspec.structs.replace(drawn, payment_hash=hashes[0])
        return drawn

    (proof,) = found((*PUBLIC, *made(bend)), "false_offer")
    assert "two levels share a payment hash" in check_proof(proof)


# --- disputes ----------------------------------------------------------------------------------------------------------------


def test_a_dispute_is_made_of_evidence_and_checked_by_a_stranger() -> None:
    events = attesting((1, 0, 0, 0))
    made_ = find_dispute(ROUND.run, events, (LIAR.pubkey,))
    assert made_ is not None
    dispute, shown = made_
    evidence = [event for event in events if event.id in dispute.evidence]
    assert check_dispute(dispute, evidence) == shown
    assert find_dispute(ROUND.run, events, (COORDINATOR.pubkey,)) is None
    assert find_dispute(EventId("1" * 64), events, (LIAR.pubkey,)) is None
    with pytest.raises(RemoteProtocolError, match="not the events that it names"):
        check_dispute(dispute, evidence[:-1])
    with pytest.raises(RemoteProtocolError, match="of another run"):
        check_dispute(msgspec.structs.replace(dispute, run=EventId("1" * 64)), evidence)
    with pytest.raises(RemoteProtocolError, match="do not show"):
        check_dispute(msgspec.structs.replace(dispute, accused=VALIDATORS[0].pubkey), evidence)


def test_a_contradiction_says_what_it_is_about() -> None:
    events = (*PUBLIC, ROUND.contradiction)
    made_ = find_dispute(ROUND.run, events, (LIAR.pubkey,))
    assert made_ is not None
    assert made_[1].about == "VerdictHash"
    body = read_message_untrusted(ROUND.claims["dispute"]).body
    assert made_[0] == body
    other = find_dispute(ROUND.run, (*PUBLIC, *made(only(1, flipped(1)))), (COORDINATOR.pubkey,))
    assert other is not None
    assert (other[0].kind, other[1].about) == ("false_offer", "")
