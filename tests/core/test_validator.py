"""A validator's duty: what it says when, what it fetches and measures, and whose verdicts count."""

from __future__ import annotations

import msgspec
import pytest

from nostrain.core.effects import (
    ChainLink,
    Compute,
    Computed,
    Draw,
    Drawn,
    Failed,
    Fetch,
    LinkRead,
    OracleAnnounce,
    OracleAnnounced,
    OracleAttest,
    OracleAttested,
)
from nostrain.core.rows import Duty, NodeState
from nostrain.core.timing import fetch_by
from nostrain.protocol.jobs import EvaluateJob
from nostrain.protocol.messages import Attestation, OracleAnnouncements, Reveal, VerdictHash
from nostrain.units import Digest
from tests.core.actors import EXAMPLES, LIMITS, MESSAGES, Node, until
from tests.core.duties import KEY, ME, D, acknowledged, announced, attesting, evaluating, fetched, hashed, measured, opened, others, state
from tests.docs.examples import START, VALIDATORS, WORKERS

# --- the way that it should go -------------------------------------------------------------------------------------------


def test_a_duty_from_announcement_to_attestation_says_what_the_examples_say() -> None:
    node = attesting()
    effect = node.asked(OracleAttest)
    assert [digits for _, _, digits in effect.outcomes] == [(1, 1, 1, 1), (1, 1, 1, 1), (0, 0, 0, 0)]
    body = MESSAGES["attestation 0"].body
    assert isinstance(body, Attestation)
    node.ends(effect, OracleAttested(body.items))
    (said,) = [message.body for message in node.speak() if isinstance(message.body, Attestation)]
    assert said.items == body.items
    assert said.verdicts == tuple(sorted(event for event, _ in node.round.verdicts.values()))
    assert state(node) is D.ATTESTED


def test_each_word_follows_the_one_before() -> None:
    assert state(announced()) is D.ANNOUNCED
    assert state(acknowledged()) is D.ACKNOWLEDGED
    node = evaluating()
    assert state(node) is D.EVALUATING
    node = hashed()
    assert state(node) is D.HASHED
    assert node.round.hashes[ME.pubkey] == MESSAGES["verdict hash 0"].body
    assert ME.pubkey not in node.round.verdicts, "nobody sees it before every hash is out"
    node = opened()
    assert node.round.verdicts[ME.pubkey][1] == MESSAGES["verdict 0"].body
    assert state(node) is D.OPENED
    assert state(attesting()) is D.ATTESTING


def test_many_thermometers_go_out_in_parts() -> None:
    node = Node(ME, "validator").hear(until("announcement")).ready().at(6)
    items = EXAMPLES.oracles[ME.name] * 7
    node.ends(node.asked(OracleAnnounce), OracleAnnounced(items))
    bodies = [row.body for key, row in node.state.rows.items() if key.startswith("outbox/") and "/oracles/" in key]  # type: ignore[union-attr]
    assert sorted(len(body.items) for body in bodies if isinstance(body, OracleAnnouncements)) == [5, 16]


# --- fetching and measuring ----------------------------------------------------------------------------------------------


def test_deltas_are_fetched_as_they_are_revealed() -> None:
    node = acknowledged().hear(others("acknowledgement 1", "reveal 0")).at(46)
    assert {effect.blob.sha256 for effect in node.asks(Fetch) if effect.name.startswith("delta")} == {EXAMPLES.deltas[0].sha256}
    assert not fetched(node).asks(Compute), "others may still be revealed"


def test_what_is_not_revealed_in_time_is_scored_as_such() -> None:
    node = fetched(acknowledged().hear(others("acknowledgement 1", "reveal 1")).at(46)).past(LIMITS.reveal_by)
    effect = node.asked(Compute)
    assert isinstance(effect.job, EvaluateJob)
    assert [one.worker for one in effect.job.candidates] == [WORKERS[0].pubkey, WORKERS[1].pubkey]
    node.ends(effect, Computed(measured(effect.job)))
    verdict = node.row(KEY, Duty).verdict
    assert verdict is not None
    assert [score.error for score in verdict.scores] == [None, None, "it was not revealed in time"]


def test_a_delta_that_is_not_to_be_had_does_not_keep_the_others_waiting() -> None:
    node = evaluating(0)
    assert not node.asks(Compute)
    node.at(fetch_by(node.round) - START)
    assert not node.asks(Compute)
    node.past(fetch_by(node.round))
    effect = node.asked(Compute)
    assert isinstance(effect.job, EvaluateJob)
    assert [one.worker for one in effect.job.candidates] == [WORKERS[1].pubkey, WORKERS[2].pubkey]
    assert not node.asks(Fetch)
    node.ends(effect, Computed(measured(effect.job)))
    verdict = node.row(KEY, Duty).verdict
    assert verdict is not None
    assert verdict.scores[0].error == "its blob was not to be had in time"


def test_when_nothing_is_to_be_had_the_verdict_says_so() -> None:
    node = evaluating(0, 1, 2)
    node.past(fetch_by(node.round))
    assert state(node) is D.HASHED
    verdict = node.row(KEY, Duty).verdict
    assert verdict is not None
    assert all(score.error for score in verdict.scores)


def test_a_blob_that_is_refused_is_scored_as_an_error_at_once() -> None:
    node = acknowledged().hear(others("acknowledgement 1", "reveal 2")).at(48)
    bad = next(effect for effect in node.asks(Fetch) if effect.blob.sha256 == EXAMPLES.deltas[1].sha256)
    node.ends(bad, Failed("has another SHA-256\nand more"))
    effect = fetched(node).asked(Compute)
    assert isinstance(effect.job, EvaluateJob)
    assert len(effect.job.candidates) == 2
    assert node.row(KEY, Duty).bad[WORKERS[1].pubkey] == "its blob cannot be had: has another SHA-256 and more"


def test_a_delta_that_two_workers_revealed_and_nobody_has_is_nobodys() -> None:
    node = acknowledged().hear(others("acknowledgement 1", "reveal 2")).at(48)
    reveals = dict(node.round.reveals)
    copy = msgspec.structs.replace(reveals[WORKERS[1].pubkey], blob=reveals[WORKERS[0].pubkey].blob)
    assert isinstance(copy, Reveal)
    row = msgspec.structs.replace(node.round, reveals={**reveals, WORKERS[1].pubkey: copy})
    node.state = NodeState({**node.state.rows, f"round/{EXAMPLES.round_id}": row})
    bad = next(effect for effect in node.asks(Fetch) if effect.blob.sha256 == EXAMPLES.deltas[0].sha256)
    node.ends(bad, Failed("not that blob"))
    assert set(node.row(KEY, Duty).bad) == {WORKERS[0].pubkey, WORKERS[1].pubkey}
    assert not [effect for effect in node.asks(Fetch) if effect.blob.sha256 == EXAMPLES.deltas[0].sha256]


@pytest.mark.parametrize("field", ["state_id", "confirming"])
def test_a_replica_that_stands_elsewhere_measures_nothing(field: str) -> None:
    """A validator that is still catching up would measure another state than it says."""
    node = acknowledged()
    replica = node.state.rows["replica"]
    elsewhere = msgspec.structs.replace(replica, **{field: Digest("7" * 64)})
    before = node.state.rows
    node.state = NodeState({**before, "replica": msgspec.structs.replace(elsewhere, dataset=None) if field == "confirming" else elsewhere})
    node.hear(others("acknowledgement 1", "reveal 2"))
    assert not [effect for effect in node.asks(Fetch) if effect.owner == KEY]
    assert not [effect for effect in node.asks(Compute) if effect.owner == KEY]


def test_an_engines_words_are_made_fit_to_be_published() -> None:
    node = evaluating()
    effect = node.asked(Compute)
    assert isinstance(effect.job, EvaluateJob)
    result = measured(effect.job)
    loud = msgspec.structs.replace(result.scores[0], error="bad\n\x1b[31m" + "x" * 400)
    node.ends(effect, Computed(msgspec.structs.replace(result, scores=(loud, *result.scores[1:]))))
    verdict = node.row(KEY, Duty).verdict
    assert verdict is not None
    error = verdict.scores[0].error
    assert error is not None
    assert error.isprintable()
    assert len(error) == 120
    assert [message for message in node.speak() if isinstance(message.body, VerdictHash)]


# --- whose verdicts count ------------------------------------------------------------------------------------------------


def test_a_hash_that_comes_after_our_verdict_is_out_does_not_count() -> None:
    """Its author has seen our verdict, and may have dated the hash back: what it copied is not a second opinion."""
    node = hashed().hear(others("verdict hash 1", "verdict hash 1")).past(LIMITS.hash_by)
    node.speak()
    assert state(node) is D.OPENED
    node.hear([MESSAGES["verdict hash 2"], MESSAGES["verdict 2"]])
    assert VALIDATORS[2].pubkey in node.round.verdicts
    node.hear([MESSAGES["verdict 1"]])
    assert state(node) is D.ATTESTING
    assert node.row(KEY, Duty).verdicts == tuple(sorted(node.round.verdicts[party.pubkey][0] for party in VALIDATORS[:2]))


def test_a_validator_that_knows_of_no_other_does_not_take_itself_for_everyone() -> None:
    """The acknowledgements of the others are still on their way; so are their hashes."""
    node = announced().hear(others("oracle announcements 1", "receipt")).at(44)
    node.ends(node.asked(Draw, "salt"), Drawn(ME.salt("verdict")))
    node.ends(node.asked(ChainLink), LinkRead(ME.chain_link(EXAMPLES.run, 1)))
    node.speak()
    fetched(node.hear(others("reveal 0", "reveal 2")))
    effect = node.asked(Compute)
    assert isinstance(effect.job, EvaluateJob)
    node.ends(effect, Computed(measured(effect.job)))
    node.speak()
    assert state(node) is D.HASHED
    node.hear([MESSAGES["acknowledgement 1"]])
    assert state(node) is D.HASHED
    node.hear([MESSAGES["verdict hash 1"]])
    assert state(node) is D.OPENED
    assert node.row(KEY, Duty).heard == tuple(sorted(party.pubkey for party in VALIDATORS[:2]))


def test_with_too_few_verdicts_it_attests_nothing() -> None:
    node = hashed().past(LIMITS.hash_by)
    node.speak()
    node.past(LIMITS.verdict_by)
    assert state(node) is D.SILENT
    assert not node.asks(OracleAttest)
    assert "1 verdicts, 2 are needed" in node.told("duties_missed")[0]
