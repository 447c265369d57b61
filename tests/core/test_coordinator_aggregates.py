"""How a coordinator closes a round: what it uses of the deltas, what its result cites, and when the result is empty."""

from __future__ import annotations

import msgspec
import pytest

from nostrain.core.effects import Compute, Computed, Failed, Fetch, Fetched, Upload, Uploaded
from nostrain.core.rows import NodeState
from nostrain.protocol.jobs import AggregateJob, AggregateResult
from nostrain.protocol.messages import Attestation, Result
from tests.core.actors import EXAMPLES, MESSAGES, ROUND, Node, changed, until
from tests.core.leads import AFTER_RECEIPT, COLLECT_BY, collecting, lead, leader, one, without
from tests.docs.examples import START, VALIDATORS, WORKERS, blob

AGGREGATE_BY = COLLECT_BY + EXAMPLES.manifest.timing.reveal_s


def aggregated(node: Node) -> AggregateResult:
    """The outer step of the examples."""
    body = MESSAGES["result"].body
    assert isinstance(body, Result)
    weights = tuple(item.weight for item in body.accepted)
    return AggregateResult(body.state_id, body.root, blob("checkpoint 1", 297_824), weights)


def fetched(node: Node) -> Node:
    for effect in node.asks(Fetch):
        node.ends(effect, Fetched(f"/blobs/{effect.blob.sha256}"))
    return node


def mirrored(node: Node) -> Node:
    """The deltas are on the run's servers."""
    for effect in node.asks(Upload):
        if effect.name.startswith("mirror:"):
            node.ends(effect, Uploaded(("https://blobs.example/d",)))
    return node


def test_what_a_result_uses_is_on_the_runs_servers_before_it_is_published() -> None:
    """Else a worker could show its delta to validators and coordinator only, and everybody else would wait at this round for ever."""
    node = fetched(collecting(AFTER_RECEIPT))
    node.ends(node.asked(Compute), Computed(aggregated(node)))
    asked = {effect.blob.sha256: effect for effect in node.asks(Upload)}
    assert set(asked) == {EXAMPLES.deltas[0].sha256, EXAMPLES.deltas[1].sha256}
    assert {(effect.path, effect.servers) for effect in asked.values()} == {
        (f"/blobs/{sha}", EXAMPLES.manifest.blob_servers) for sha in asked
    }
    assert not node.speak()
    mirrored(node)
    assert one(node, Result)


def test_a_delta_that_the_runs_servers_refuse_is_left_out_of_the_outer_step() -> None:
    node = fetched(collecting(AFTER_RECEIPT))
    node.ends(node.asked(Compute), Computed(aggregated(node)))
    refused, kept = (node.asked(Upload, f"mirror:{delta.sha256}") for delta in EXAMPLES.deltas[:2])
    node.ends(kept, Uploaded(("https://blobs.example/d",)))
    node.ends(refused, Failed("403: not this one"))
    assert node.told("deltas_left_out")
    assert lead(node).outcome is None
    assert not node.asks(Upload), "the checkpoint of the step that used it is void"
    job = node.asked(Compute).job
    assert isinstance(job, AggregateJob)
    assert [digest for digest, _ in job.deltas] == [kept.blob.sha256]
    whole = aggregated(node)
    node.ends(node.asked(Compute), Computed(msgspec.structs.replace(whole, weights=whole.weights[1:])))
    said = one(node, Result).body
    assert isinstance(said, Result)
    assert [item.delta.sha256 for item in said.accepted] == [kept.blob.sha256]


def test_when_the_runs_servers_refuse_every_delta_the_round_closes_empty() -> None:
    node = fetched(collecting(AFTER_RECEIPT))
    node.ends(node.asked(Compute), Computed(aggregated(node)))
    while asked := [effect for effect in node.asks(Upload) if effect.name.startswith("mirror:")]:
        node.ends(asked[0], Failed("403: full"))
        for effect in node.asks(Compute):
            node.ends(effect, Computed(aggregated(node)))
    said = one(node, Result).body
    assert isinstance(said, Result)
    assert (said.accepted, said.state_id) == ((), EXAMPLES.state_id)


def test_from_deltas_to_a_result_that_everyone_takes() -> None:
    node = fetched(collecting(AFTER_RECEIPT))
    effect = node.asked(Compute)
    assert isinstance(effect.job, AggregateJob)
    assert [digest for digest, _ in effect.job.deltas] == [EXAMPLES.deltas[0].sha256, EXAMPLES.deltas[1].sha256]
    assert effect.job.committed == 3
    result = msgspec.structs.replace(aggregated(node), checkpoint=msgspec.structs.replace(blob("checkpoint 1", 297_824), urls=()))
    node.ends(effect, Computed(result))
    node.ends(node.asked(Upload, "checkpoint"), Uploaded(("https://blobs.example/c",)))
    mirrored(node)
    said = one(node, Result)
    assert node.run.round == 1
    assert node.run.halted is None
    listener = Node(WORKERS[0]).hear([*until("attestation 2"), said])
    assert (listener.run.round, listener.run.halted) == (1, None)
    body = said.body
    assert isinstance(body, Result)
    assert [item.level for item in body.accepted] == [4, 4]
    assert body.checkpoint.urls == ("https://blobs.example/c",)


def test_a_delta_that_is_not_to_be_had_is_left_out_in_the_end() -> None:
    node = collecting(AFTER_RECEIPT)
    first, second = sorted(node.asks(Fetch), key=lambda effect: effect.blob.sha256 != EXAMPLES.deltas[0].sha256)
    node.ends(second, Fetched("/blobs/second"))
    assert not node.at(AGGREGATE_BY - START).asks(Compute)
    node.past(AGGREGATE_BY)
    assert set(lead(node).levels) == {WORKERS[1].pubkey}
    assert not [effect for effect in node.asks(Fetch) if effect.id == first.id]
    assert node.told("deltas_left_out")
    job = node.asked(Compute).job
    assert isinstance(job, AggregateJob)
    assert len(job.deltas) == 1


def test_when_no_delta_is_to_be_had_the_round_closes_empty() -> None:
    node = collecting(AFTER_RECEIPT).past(AGGREGATE_BY)
    said = one(node, Result).body
    assert isinstance(said, Result)
    assert (said.accepted, len(said.attestations)) == ((), len(VALIDATORS)), "verdicts on work that is not used are work too"
    assert not node.asks(Fetch)


@pytest.mark.parametrize(
    "outcome", [Failed("the engine refuses the job"), Computed(AggregateResult(None, None, None, error="delta 1: no delta"))]
)
def test_an_outer_step_that_fails_closes_the_round_without_work(outcome: Failed | Computed) -> None:
    node = fetched(collecting(AFTER_RECEIPT))
    node.ends(node.asked(Compute), outcome)
    said = one(node, Result).body
    assert isinstance(said, Result)
    assert said.accepted == ()
    assert said.state_id == EXAMPLES.state_id
    assert node.told("aggregations_failed")
    assert node.run.round == 1


def test_a_refusal_passes_on_only_so_many_of_other_peoples_words() -> None:
    node = collecting(without("attestation 1", "attestation 2"))
    wordy = {}
    for author, (event, verdict) in node.round.verdicts.items():
        scores = tuple(msgspec.structs.replace(score, error="x" * 250) for score in verdict.scores)
        wordy[author] = (event, msgspec.structs.replace(verdict, scores=scores))
    key = f"round/{EXAMPLES.round_id}"
    node.state = NodeState({**node.state.rows, key: msgspec.structs.replace(node.round, verdicts=wordy)})
    node.past(COLLECT_BY)
    said = one(node, Result).body
    assert isinstance(said, Result)
    assert {len(item.reason) for item in said.refused} == {120}


def test_a_result_cites_one_attestation_of_each_validator() -> None:
    again = [changed("attestation 0", VALIDATORS[0], 66 + n) for n in range(1, 20)]
    node = leader(until("commitment 2"))
    node.speak()
    node.hear([MESSAGES[label] for label in AFTER_RECEIPT[:-3]])
    node.hear([*again, *(MESSAGES[label] for label in AFTER_RECEIPT[-3:])])
    fetched(node)
    node.ends(node.asked(Compute), Computed(aggregated(node)))
    said = one(mirrored(node), Result).body
    assert isinstance(said, Result)
    authors = [message.author for message in (*ROUND, *again) if message.id in said.attestations]
    assert sorted(authors) == sorted(party.pubkey for party in VALIDATORS)
    assert all(isinstance(message.body, Attestation) for message in again)
