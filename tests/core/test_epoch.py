"""Epochs: which rounds belong together, what a mean of scores pays, and every refusal of what does not fit an epoch."""

from __future__ import annotations

from hashlib import sha256

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nostrain.core.inputs import Received
from nostrain.core.rounds import epoch
from nostrain.core.rounds.epoch import first_of, last_of, level_of_epoch, verdicts_digest
from nostrain.core.rounds.scoring import level_of
from nostrain.core.rows import Run
from nostrain.core.timing import epoch_ends, held_s, settled_by
from nostrain.protocol import messages as m
from nostrain.units import Digest, Ppm
from tests.core.actors import EXAMPLES, LIMITS, MESSAGES, changed, say, until
from tests.core.epochs import LISTED, ends, listener, manifest, thermometers
from tests.docs.examples import COORDINATOR, START, VALIDATORS, Party


@given(st.integers(1, 40), st.integers(1, 8), st.data())
def test_epochs_cover_every_round_once(rounds: int, epoch_rounds: int, data: st.DataObject) -> None:
    made = manifest(rounds, epoch_rounds)
    number = data.draw(st.integers(1, rounds))
    first, last = first_of(made, number), last_of(made, number)
    assert first <= number <= last <= rounds
    assert first % epoch_rounds == 1 % epoch_rounds
    assert last - first + 1 == epoch_rounds or last == rounds
    assert {first_of(made, other) for other in range(first, last + 1)} == {first}
    assert last == rounds or first_of(made, last + 1) == last + 1


@given(st.integers(1, 8))
def test_holds_outlast_the_attestations_of_an_epoch(epoch_rounds: int) -> None:
    made, anchor = manifest(8, epoch_rounds), listener(until("announcement")).round
    run = Run(EXAMPLES.run, COORDINATOR.pubkey, made, EXAMPLES.run, EXAMPLES.state_id)
    assert settled_by(run, anchor) - START <= held_s(made) + (anchor.announcement.deadlines.commit_by - START)
    assert epoch_ends(run, anchor) >= LIMITS.attest_by


SCORES = st.lists(st.integers(-1_000_000, 1_500_000).map(Ppm), min_size=1, max_size=8)


@given(SCORES, st.integers(0, 7))
def test_an_epoch_pays_in_proportion_to_the_rounds_that_were_scored(scores: list[Ppm], others: int) -> None:
    spec, count = EXAMPLES.manifest.scoring, len(scores) + others
    whole, paid = level_of_epoch(scores, len(scores), spec), level_of_epoch(scores, count, spec)
    assert whole == level_of(Ppm(sum(scores) // len(scores)), spec)
    assert abs(2 * paid * count - 2 * whole * len(scores)) <= count
    assert level_of_epoch([], count, spec) == 0


def test_no_round_of_an_epoch_is_worth_nothing_to_who_did_it_well() -> None:
    assert [level_of_epoch([Ppm(1_000_000)] * n, 8, EXAMPLES.manifest.scoring) for n in range(1, 9)] == [1, 1, 2, 2, 3, 3, 4, 4]


def attests(party: Party, said: m.OracleAnnouncements, level: int, **changes: object) -> m.EpochAttestation:
    """The same level for everyone."""
    items = tuple(party.attests(item, (1,) * level + (0,) * (4 - level)) for item in said.items)
    body = m.EpochAttestation(EXAMPLES.run, EXAMPLES.round_id, 1, 2, Digest("a" * 64), items)
    return msgspec.structs.replace(body, **changes)


def test_pay_is_what_t_validators_attest_of_the_epoch() -> None:
    node = listener(until("announcement"))
    for party, level in zip(VALIDATORS, (4, 3, 1), strict=True):
        said = thermometers(party, ends(node))
        node.hear([say(party, said, 45), say(party, attests(party, said, level), 90)])
    assert not node.told("messages_refused")
    assert epoch.paid_levels(node.run, node.round) == dict.fromkeys(LISTED, 3)


@pytest.mark.parametrize(("epoch_rounds", "wrong", "reason"), [(1, 0, "which is none of this round"), (2, 1, "of another maturity")])
def test_thermometers_that_belong_to_no_epoch_are_refused(epoch_rounds: int, wrong: int, reason: str) -> None:
    node = listener(until("announcement"), epoch_rounds)
    node.take(Received(say(VALIDATORS[0], thermometers(VALIDATORS[0], ends(node) + wrong), 45)))
    assert reason in node.told("messages_refused")[0]


def test_an_epoch_attestation_of_a_run_without_epochs_is_refused() -> None:
    node = listener(until("attestation 2"), 1)
    said = thermometers(VALIDATORS[0], LIMITS.attest_by)
    node.take(Received(say(VALIDATORS[0], attests(VALIDATORS[0], said, 4), 90)))
    assert "opens no epoch" in node.told("messages_refused")[0]


def test_an_epoch_attestation_has_to_cover_the_listed_workers_on_the_epochs_thermometers() -> None:
    node = listener(until("attestation 2"))
    said = thermometers(VALIDATORS[0], ends(node))
    partly = attests(VALIDATORS[0], said, 4)
    rounds = MESSAGES["attestation 0"].body
    assert isinstance(rounds, m.Attestation)
    node.hear([say(VALIDATORS[0], said, 45)])
    node.take(Received(say(VALIDATORS[0], msgspec.structs.replace(partly, items=partly.items[:2]), 90)))
    node.take(Received(say(VALIDATORS[0], msgspec.structs.replace(partly, items=rounds.items), 90)))
    first, second = node.told("messages_refused")
    assert "does not cover exactly the epoch's workers" in first
    assert "of another event" in second
    assert not node.round.epoch_attestations


def test_who_attests_an_epoch_twice_is_not_believed_again() -> None:
    node = listener(until("announcement"))
    said = thermometers(VALIDATORS[0], ends(node))
    twice = [say(VALIDATORS[0], attests(VALIDATORS[0], said, 4, through=through), 90) for through in (1, 2)]
    node.hear([say(VALIDATORS[0], said, 45), *twice])
    assert VALIDATORS[0].pubkey in node.run.faulty


def test_the_lists_of_an_epoch_stay_as_they_are() -> None:
    node = listener(until("result"))
    body = MESSAGES["announcement"].body
    assert isinstance(body, m.Announcement)
    later = {"round": 2, "parent": node.run.head, "state_id": node.run.state_id}
    shift = LIMITS.commit_by - EXAMPLES.manifest.timing.commit_s
    moved = {name: value - shift + START + 200 for name, value in msgspec.structs.asdict(body.deadlines).items()}
    later["deadlines"] = m.Deadlines(**moved)
    node.take(Received(changed("announcement", COORDINATOR, 200, **later, validators=body.validators[:2])))
    assert "not those of the round that opened the epoch" in node.told("messages_refused")[0]
    node.take(Received(changed("announcement", COORDINATOR, 200, **later, workers=body.workers[:2])))
    assert node.run.open is not None


def test_the_digest_is_of_the_verdicts_that_attestations_name() -> None:
    node = listener(until("attestation 2"))
    named = sorted(event_id for event_id, _ in node.round.verdicts.values())
    assert verdicts_digest([node.round]) == sha256(bytes.fromhex("".join(named))).hexdigest()
    one = msgspec.structs.replace(node.round, attestations=dict(list(node.round.attestations.items())[:1]))
    assert verdicts_digest([node.round, one]) == sha256(bytes.fromhex("".join(named) * 2)).hexdigest()
    assert verdicts_digest([msgspec.structs.replace(node.round, attestations={})]) == sha256(b"").hexdigest()
