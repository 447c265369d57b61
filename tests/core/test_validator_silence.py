"""When a validator's duty falls silent, and what does not silence it."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from nostrain.core.effects import (
    ChainLink,
    Compute,
    Failed,
    Fetch,
    OracleAnnounce,
    OracleAttest,
)
from nostrain.protocol.jobs import EvaluateJob
from nostrain.protocol.manifest import BlobRef
from nostrain.protocol.messages import Acknowledgement, Attestation, Message, Verdict, VerdictHash
from tests.core.actors import EXAMPLES, LIMITS, MESSAGES, Node, changed, until
from tests.core.duties import KEY, ME, D, acknowledged, announced, attesting, evaluating, hashed, opened, others, state
from tests.docs.examples import COORDINATOR, START, WORKERS


@pytest.mark.parametrize(
    ("stage", "deadline"),
    [
        (lambda: Node(ME, "validator").hear(until("announcement")).ready().at(6), LIMITS.commit_by),
        (announced, LIMITS.acknowledge_by),
        (acknowledged, LIMITS.hash_by),
        (evaluating, LIMITS.hash_by),
        (hashed, LIMITS.verdict_by),
        (opened, LIMITS.attest_by),
    ],
    ids=["announcing", "announced", "acknowledged", "evaluating", "hashed", "opened"],
)
def test_after_its_time_a_duty_says_nothing_more(stage, deadline: int) -> None:  # type: ignore[no-untyped-def]
    """As after a long sleep: the clock jumps past the deadline."""
    node = stage()
    assert state(node) is not D.SILENT
    node.past(deadline)
    assert state(node) is D.SILENT
    assert not [effect for effect in node.asks(Compute) + node.asks(Fetch) + node.asks(OracleAnnounce) if effect.owner == KEY]
    late = (Acknowledgement, VerdictHash, Verdict, Attestation)
    assert not [message for message in node.speak() if isinstance(message.body, late)]


def test_an_oracle_that_will_not_sign_silences_its_node_only() -> None:
    node = attesting()
    node.ends(node.asked(OracleAttest), Failed("announced before a restore from backup"))
    assert state(node) is D.SILENT


def test_an_engine_that_refuses_the_job_silences_the_duty() -> None:
    node = evaluating()
    node.ends(node.asked(Compute), Failed("the engine refuses the job"))
    assert state(node) is D.SILENT


def empty_result(after: int) -> Message:
    return changed("result", COORDINATOR, after, accepted=(), attestations=(), state_id=EXAMPLES.state_id)


def test_a_round_that_closes_before_anything_was_shown_ends_the_duty() -> None:
    node = announced().hear([empty_result(30)])
    assert state(node) is D.SILENT


@pytest.mark.parametrize("stage", [acknowledged, evaluating, hashed, opened])
def test_a_coordinator_that_closes_early_and_empty_silences_nobody(stage) -> None:  # type: ignore[no-untyped-def]
    node = stage()
    before = state(node)
    node.hear([empty_result(60)])
    assert state(node) is before


def test_the_duty_goes_on_to_its_attestation_after_an_early_empty_result() -> None:
    node = hashed().hear([empty_result(60), *others("verdict hash 1", "verdict hash 2")])
    node.speak()
    node.hear(others("verdict 1", "verdict 2"))
    assert len(node.asked(OracleAttest).outcomes) == 3


def test_the_duty_goes_on_to_its_attestation_in_a_run_that_is_halted() -> None:
    """A coordinator that contradicts itself once the deltas are shown would have them for nothing."""
    node = hashed().hear([changed("announcement", COORDINATOR, 51), *others("verdict hash 1", "verdict hash 2")])
    assert node.run.halted
    node.speak()
    node.hear(others("verdict 1", "verdict 2"))
    assert len(node.asked(OracleAttest).outcomes) == 3


def test_a_duty_that_has_shown_nothing_ends_with_the_run() -> None:
    node = announced().hear([changed("announcement", COORDINATOR, 51), *others("oracle announcements 1", "receipt")]).at(44)
    assert node.run.halted
    assert not node.asks(ChainLink)


def test_a_result_that_uses_attested_work_ends_the_duty() -> None:
    node = opened().hear([MESSAGES["attestation 1"], MESSAGES["attestation 2"], MESSAGES["verdict 1"], MESSAGES["result"]])
    assert state(node) is D.SILENT


def test_whoever_is_not_listed_or_comes_too_late_has_no_duty() -> None:
    for party, after in ((WORKERS[0], 6), (ME, LIMITS.commit_by - START + 1)):
        node = Node(party, "validator")
        node.now = START + after  # type: ignore[assignment]
        node.hear(until("announcement"))
        assert not node.has(KEY)


def test_files_are_named_by_digests() -> None:
    node = evaluating()
    job = node.asked(Compute).job
    assert isinstance(job, EvaluateJob)
    assert {PurePosixPath(one.delta).name for one in job.candidates} == {delta.sha256 for delta in EXAMPLES.deltas}
    assert isinstance(EXAMPLES.deltas[0], BlobRef)
