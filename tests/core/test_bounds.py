"""What a manifest may ask of those who join its run."""

from __future__ import annotations

import re
from typing import Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nostrain.core.bounds import MAX_BATCHES, manifest_problem
from nostrain.core.inputs import Boot
from nostrain.core.timing import blocks_in
from nostrain.protocol.limits import MAX_WORKERS
from nostrain.protocol.manifest import ModelSpec, RopeScaling, RunManifest, ScoringSpec, SettlementSpec, TimingSpec, TrainingSpec
from nostrain.protocol.messages import Message
from nostrain.units import PPM, EventId, Msat, Ppm
from tests.core.actors import EXAMPLES, Node
from tests.docs.examples import BLOBS, COORDINATOR, START, Party


def test_the_examples_manifest_and_the_defaults_are_within_bounds() -> None:
    assert manifest_problem(EXAMPLES.manifest) is None


def paid(**changes: object) -> SettlementSpec:
    """One sat a level, four levels, four workers."""
    return msgspec.structs.replace(SettlementSpec(mode="hold", pool_msat=Msat(64_000), slots=4), **changes)


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
        ({"settlement": paid(pool_msat=0)}, "levels of 0 msat: 0 msat for 4 workers"),
        ({"settlement": paid(pool_msat=15_999)}, "levels of 0 msat: 15999 msat for 4 workers"),
        ({"settlement": paid(pool_msat=1 << 60)}, "levels of 72057594037927000 msat"),
        ({"settlement": paid(slots=0)}, "a pool for 0 workers"),
        ({"settlement": paid(slots=21)}, "a pool for 21 workers"),
        ({"settlement": paid(slots=2)}, "3 workers to begin with, and a pool for 2"),
        ({"settlement": paid(epoch_rounds=9)}, "epochs of 9 rounds, 8 is the limit"),
        ({"settlement": paid(fee_msat=16_001, ticket_server="http://127.0.0.1:1")}, "fees of 1 × 16001 msat, more than all levels pay"),
        ({"settlement": paid(min_final_cltv=28)}, "holds of 28 blocks, an epoch may need"),
        ({"max_delta_bytes": 0}, "a blob without bytes"),
        ({"blob_servers": (BLOBS,) * 17}, "17 blob servers"),
        ({"relays": ("wss://relay.example",) * 9}, "9 relays"),
        ({"relays": ("wss://" + "a" * 256,)}, "1 relays, or an address of more than 256"),
        ({"model": ModelSpec(num_hidden_layers=257)}, "a model of 257 layers"),
        ({"model": ModelSpec(num_hidden_layers=0)}, "a model of 0 layers"),
        ({"model": ModelSpec(vocab_size=0)}, "sides 128, 384, 0, 128"),
        ({"model": ModelSpec(hidden_size=1 << 60)}, "a model of 4 layers, with sides 1152921504606846976"),
        ({"model": ModelSpec(hidden_size=1 << 19, intermediate_size=1 << 20, num_hidden_layers=256)}, " parameters"),
        ({"model": ModelSpec(num_attention_heads=0)}, "0 heads share 4 keys"),
        ({"model": ModelSpec(num_attention_heads=3, num_key_value_heads=3)}, "3 heads of width 42.6667"),
        ({"model": ModelSpec(num_key_value_heads=3)}, "4 heads share 3 keys"),
        ({"model": ModelSpec(head_dim=-2)}, "4 heads of width -2"),
        ({"model": ModelSpec(head_dim=5)}, "4 heads of width 5"),
        ({"model": ModelSpec(rms_norm_eps_ppb=0)}, "an epsilon of 0 ppb"),
        ({"model": ModelSpec(rope_theta=0)}, "a rope theta of 0"),
        ({"model": ModelSpec(architecture="qwen2", attention_bias=True)}, "no attention_bias"),
        ({"model": ModelSpec(architecture="qwen3", mlp_bias=True)}, "no mlp_bias"),
        ({"model": ModelSpec(rope_scaling=RopeScaling(0, 1, 2, 3))}, "rope scaled by 0 ppm"),
        ({"model": ModelSpec(rope_scaling=RopeScaling(PPM, 2, 2, 3))}, "between 2 and 2 ppm"),
        ({"model": ModelSpec(rope_scaling=RopeScaling(PPM, 1, 2, 0))}, "from 0 positions"),
    ],
)
def test_a_manifest_that_nobody_can_take_part_in_is_refused(changes: dict[str, object], problem: str) -> None:
    manifest: RunManifest = msgspec.structs.replace(EXAMPLES.manifest, **changes)
    assert problem in (manifest_problem(manifest) or "")
    node = Node(Party("listener")).hear([Message(EventId("1" * 64), COORDINATOR.pubkey, START, manifest)])
    assert not node.has("run")
    assert problem in node.told("messages_refused")[0]


def listening(memory: int, role: Literal["worker", "validator"] = "worker") -> Node:
    """A node with so many bytes for its engine that has heard of a run of a large model, which pays nothing."""
    model = ModelSpec(576, 1536, 30, 9, 3, 49_152, 2048, tie_word_embeddings=True)
    training = TrainingSpec(batch_size=8, sequence_length=1024)
    manifest = msgspec.structs.replace(EXAMPLES.manifest, model=model, training=training, settlement=SettlementSpec())
    node = Node(Party("listener"), role)
    node.take(Boot(msgspec.structs.replace(node.identity, memory=memory)))
    return node.hear([Message(EventId("1" * 64), COORDINATOR.pubkey, START, manifest)])


def test_a_worker_joins_no_run_that_its_machine_cannot_hold() -> None:
    poor = listening(4 << 30)
    assert not poor.has("run")
    assert poor.told("runs_too_large") == ["run example (11111111) needs 5,282 MiB to train, this machine has 4,096 MiB: not joined"]
    for able in (listening(7 << 30), listening(0)):
        assert able.has("run")
        assert able.told("runs_too_large") == []


def test_a_validator_joins_no_run_that_its_machine_cannot_hold() -> None:
    poor = listening(1 << 30, "validator")
    assert not poor.has("run")
    (told,) = poor.told("runs_too_large")
    assert re.fullmatch(r"run example \(11111111\) needs [\d,]+ MiB to evaluate, this machine has 1,024 MiB: not joined", told)
    # Whole batches would take 20 GiB: one window at a time, it can.
    for able in (listening(4 << 30, "validator"), listening(0, "validator")):
        assert able.has("run")
        assert able.told("runs_too_large") == []


@given(pool=st.integers(0, 1 << 50), slots=st.integers(1, 100), levels=st.integers(1, 8))
def test_levels_share_the_pool_and_never_pay_more(pool: int, slots: int, levels: int) -> None:
    level = SettlementSpec(mode="hold", pool_msat=Msat(pool), slots=slots).level_msat(levels)
    assert level % 1000 == 0
    assert 0 <= pool - level * slots * levels < 1000 * slots * levels
    assert SettlementSpec(mode="hold", pool_msat=Msat(pool), slots=2 * slots).level_msat(levels) <= level / 2


def test_a_run_that_is_not_paid_pays_nothing_and_has_no_slots() -> None:
    unpaid = msgspec.structs.replace(EXAMPLES.manifest, settlement=SettlementSpec())
    assert (unpaid.level_msat, unpaid.places) == (0, MAX_WORKERS)
    assert (EXAMPLES.manifest.level_msat, EXAMPLES.manifest.places) == (250_000, 8)


def test_a_hold_lasts_longer_than_the_longest_round_at_any_luck() -> None:
    assert blocks_in(0) == 3
    assert blocks_in(600) == 7
    assert blocks_in(600 * 100) == 133
    assert all(blocks_in(n + 1) >= blocks_in(n) for n in range(0, 5_000, 7))
    assert manifest_problem(msgspec.structs.replace(EXAMPLES.manifest, timing=SHORT)) is None
    assert MAX_BATCHES == 32
