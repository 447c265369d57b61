"""What a manifest may ask of those who join its run."""

from __future__ import annotations

import msgspec
import pytest

from nostrain.core.bounds import MAX_BATCHES, manifest_problem
from nostrain.core.timing import blocks_in
from nostrain.protocol.manifest import RunManifest, ScoringSpec, SettlementSpec, TimingSpec
from nostrain.protocol.messages import Message
from nostrain.units import EventId, Msat, Ppm
from tests.core.actors import EXAMPLES, Node
from tests.docs.examples import BLOBS, COORDINATOR, START, Party


def test_the_examples_manifest_and_the_defaults_are_within_bounds() -> None:
    assert manifest_problem(EXAMPLES.manifest) is None


SHORT = TimingSpec(commit_s=1, acknowledge_s=1, reveal_s=1, verdict_s=1, attest_s=1, grace_s=0)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"rounds": 0}, "0 rounds"),
        ({"rounds": 100_001}, "100001 rounds"),
        ({"threshold": 0}, "threshold 0 of 3 validators"),
        ({"threshold": 4}, "threshold 4 of 3 validators"),
        ({"min_workers": 0}, "0 workers"),
        ({"min_workers": 21}, "21 workers"),
        ({"timing": TimingSpec(commit_s=0)}, "a phase without time"),
        ({"timing": TimingSpec(verdict_s=1 << 61)}, "or of more than a month"),
        ({"timing": TimingSpec(grace_s=-1)}, "a phase without time"),
        ({"scoring": ScoringSpec(levels_ppm=())}, "its levels do not increase"),
        ({"scoring": ScoringSpec(levels_ppm=(Ppm(5), Ppm(4)))}, "its levels do not increase"),
        ({"scoring": ScoringSpec(levels_ppm=(Ppm(0),))}, "its levels do not increase"),
        ({"scoring": ScoringSpec(floor_nanonats=0)}, "the floor of the normalizer is not positive"),
        ({"scoring": ScoringSpec(unassigned_tokens=0)}, "evaluation of less than one window"),
        ({"scoring": ScoringSpec(unassigned_tokens=1 << 31)}, "batches of losses"),
        ({"scoring": ScoringSpec(eval_batch=0)}, "evaluation of less than one window"),
        ({"settlement": SettlementSpec(instances=0)}, "cut-and-choose or CLTV out of range"),
        ({"settlement": SettlementSpec(instances=17)}, "cut-and-choose or CLTV out of range"),
        ({"settlement": SettlementSpec(mode="hold", level_msat=Msat(0))}, "hold invoices of nothing"),
        ({"settlement": SettlementSpec(mode="hold", level_msat=Msat(1 << 60))}, f"levels of {1 << 60} msat"),
        ({"settlement": SettlementSpec(mode="hold", level_msat=Msat(1), min_final_cltv=28)}, "holds of 28 blocks, a round may need"),
        ({"max_delta_bytes": 0}, "a blob without bytes"),
        ({"blob_servers": (BLOBS,) * 17}, "17 blob servers"),
        ({"tensors": ()}, "no tensors"),
    ],
)
def test_a_manifest_that_nobody_can_take_part_in_is_refused(changes: dict[str, object], problem: str) -> None:
    manifest: RunManifest = msgspec.structs.replace(EXAMPLES.manifest, **changes)
    assert problem in (manifest_problem(manifest) or "")
    node = Node(Party("listener")).hear([Message(EventId("1" * 64), COORDINATOR.pubkey, START, manifest)])
    assert not node.has("run")
    assert problem in node.told("messages_refused")[0]


def test_a_hold_lasts_longer_than_the_longest_round_at_any_luck() -> None:
    assert blocks_in(0) == 3
    assert blocks_in(600) == 7
    assert blocks_in(600 * 100) == 133
    assert all(blocks_in(n + 1) >= blocks_in(n) for n in range(0, 5_000, 7))
    assert manifest_problem(msgspec.structs.replace(EXAMPLES.manifest, timing=SHORT)) is None
    assert MAX_BATCHES == 32
