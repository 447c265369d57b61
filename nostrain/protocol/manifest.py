"""What a run is: the content of the run manifest (kind 8650). Every number is an integer.

The defaults are those of design section 12 and of the `tiny` devnet run.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from nostrain.protocol.event import Event
from nostrain.protocol.limits import MAX_WORKERS
from nostrain.units import PPM, Digest, Msat, Ppm

SAT: Final = 1000
"""msat."""


class BlobRef(msgspec.Struct, frozen=True):
    """A blob by digest, with its size in bytes; `urls` are hints."""

    sha256: Digest
    size: int
    urls: tuple[str, ...] = ()


class RopeScaling(msgspec.Struct, frozen=True):
    """Llama 3's stretching of low frequencies (`rope_type` `llama3` in transformers), for contexts beyond `original_max_position_embeddings`.

    With a context of 1 and a low factor of 1 or more every frequency is low: that is `rope_type` `linear`.
    """

    factor_ppm: int
    low_freq_factor_ppm: int
    high_freq_factor_ppm: int
    original_max_position_embeddings: int


class ModelSpec(msgspec.Struct, frozen=True):
    """A model of the Llama family as transformers' configurations describe it: `config.json` in integers (`protocol.hf_config`). Weights are float32.

    `head_dim` 0: the hidden size shared among the heads. `attention_bias`: q, k, v and o have biases; qwen2 has them in q, k and v in any case.
    `mlp_bias`: so have the three of the gated layer, in llama alone; a model without need not say it.
    """

    hidden_size: int = 128
    intermediate_size: int = 384
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    num_key_value_heads: int = 4
    vocab_size: int = 256
    max_position_embeddings: int = 128
    rope_theta: int = 10_000
    tie_word_embeddings: bool = False
    architecture: Literal["llama", "qwen2", "qwen3"] = "llama"
    head_dim: int = 0
    rms_norm_eps_ppb: int = 1_000
    attention_bias: bool = False
    rope_scaling: RopeScaling | None = None
    mlp_bias: bool | msgspec.UnsetType = msgspec.UNSET

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.head_dim or self.hidden_size // max(1, self.num_attention_heads)

    @property
    def gate_biased(self) -> bool:
        """Whether the gated layer has biases."""
        return self.mlp_bias is True


class TensorSpec(msgspec.Struct, frozen=True, array_like=True):
    """Name and shape of one float32 tensor of the checkpoint; sorted by name (byte order); `protocol.tensors` says which a model has."""

    name: str
    shape: tuple[int, ...]


class TrainingSpec(msgspec.Struct, frozen=True):
    """The inner steps: H AdamW steps on batches of `batch_size` windows of `sequence_length` tokens."""

    inner_steps: int = 30
    batch_size: int = 4
    sequence_length: int = 128
    learning_rate_ppb: int = 3_000_000
    warmup_steps: int = 60
    weight_decay_ppm: Ppm = Ppm(100_000)
    beta1_ppm: Ppm = Ppm(900_000)
    beta2_ppm: Ppm = Ppm(950_000)
    clip_ppm: Ppm = Ppm(1_000_000)


class CodecSpec(msgspec.Struct, frozen=True):
    """The SparseLoCo compressor: top-k per chunk (tiles of √chunk × √chunk), 1 bit a value for one magnitude a chunk or 2 for two, error feedback decay."""

    version: int = 2
    chunk: int = 4096
    topk: int = 64
    quantizer_bits: int = 2
    error_feedback_ppm: Ppm = Ppm(950_000)


Rule = Literal["mean_r", "mean_contributors", "shrink", "sign", "trim"]

RULE_PARAMETERS: Final[dict[Rule, tuple[int, int]]] = {
    "mean_r": (0, 0),
    "mean_contributors": (0, 0),
    "shrink": (1, MAX_WORKERS),
    "sign": (1, PPM),
    "trim": (1, (MAX_WORKERS - 1) // 2),
}
"""Least and greatest `parameter` of every rule of the outer step."""


class OuterSpec(msgspec.Struct, frozen=True):
    """The outer step theta' = theta - alpha * sum_i c_i * delta_i / d, exact (design section 12, docs/adr/0043).

    The divisor d, where n of the deltas have a value: `mean_r` R, the commitments; `mean_contributors` n; `shrink` n + `parameter`; `sign` R,
    but no step where |n₊ - n₋| < `parameter` millionths of n; `trim` n less the `parameter` largest and smallest, if any are left without them.
    """

    rule: Rule = "mean_r"
    alpha_ppm: Ppm = Ppm(2_000_000)
    parameter: int = 0


class ScoringSpec(msgspec.Struct, frozen=True):
    """How validators score: tokens a submission, the levels q_k, the floor of the normalizer, the plausibility checks."""

    unassigned_tokens: int = 16_384
    assigned_tokens: int = 1_024
    validation_tokens: int = 16_384
    eval_batch: int = 32
    levels_ppm: tuple[Ppm, ...] = (Ppm(400_000), Ppm(500_000), Ppm(600_000), Ppm(700_000))
    floor_nanonats: int = 100_000
    max_overlap_ppm: Ppm = Ppm(500_000)
    plausibility_from_round: int = 4
    min_provenance_milli_z: int = 0


class TimingSpec(msgspec.Struct, frozen=True):
    """Seconds each phase may last at most; a phase ends early once everyone whose turn it is has spoken."""

    commit_s: int = 90
    acknowledge_s: int = 30
    reveal_s: int = 30
    verdict_s: int = 90
    attest_s: int = 30
    grace_s: int = 5


class SettlementSpec(msgspec.Struct, frozen=True):
    """`none`: the run is not paid. `hold`: a thermometer of hold invoices per worker (design section 6).

    The schedule (design section 12): each epoch of `epoch_rounds` rounds pays at most `pool_msat` to at most `slots` workers, and what a level
    pays follows from both (`level_msat`). Both are fixed before anything is locked: more workers share the pool, they do not multiply it.
    `network` is the chain that the locks are bound to, as lightningd names it. With `fee_msat` above 0 a worker first buys a ticket of the round at `ticket_server` (base URL; L402, design section 7);
    of these fees the validators have `validator_share_ppm` (`core.escrow.split`).
    """

    mode: Literal["none", "hold"] = "none"
    pool_msat: Msat = Msat(0)
    slots: int = 0
    epoch_rounds: int = 1
    fee_msat: Msat = Msat(0)
    ticket_server: str = ""
    network: Literal["bitcoin", "testnet", "signet", "regtest"] = "regtest"
    instances: int = 8
    min_final_cltv: int = 80
    validator_share_ppm: Ppm = Ppm(500_000)

    def level_msat(self, levels: int) -> Msat:
        """What one level of a worker's `levels` pays: (B_epoch / R_max) · (1 / K) in whole sat, because an HTLC on the chain has no fraction of one."""
        shares = self.slots * levels if self.mode == "hold" else 0
        return Msat(self.pool_msat // shares // SAT * SAT) if shares > 0 else Msat(0)


class RunManifest(msgspec.Struct, frozen=True, tag_field="type", tag="run"):
    """Content of kind 8650. `d` tag: the run id. Immutable: everything later refers to this event's id. `relays`: where participants meet.

    `curations` are the signed events of those who stand for the dataset (`wire.curation`). `delay`: how many states a delta is applied after the
    one that it was trained from (design section 12), 0 or 1; a run without delay need not say it.
    """

    name: str
    rounds: int
    min_workers: int
    min_validators: int
    threshold: int
    model: ModelSpec
    dataset: BlobRef
    checkpoint: BlobRef
    root: Digest
    blob_servers: tuple[str, ...]
    relays: tuple[str, ...] = ()
    training: TrainingSpec = TrainingSpec()
    codec: CodecSpec = CodecSpec()
    outer: OuterSpec = OuterSpec()
    scoring: ScoringSpec = ScoringSpec()
    timing: TimingSpec = TimingSpec()
    settlement: SettlementSpec = SettlementSpec()
    max_delta_bytes: int = 1 << 20
    curations: tuple[Event, ...] = ()
    delay: int | msgspec.UnsetType = msgspec.UNSET
    v: int = 1

    @property
    def delayed(self) -> bool:
        """Whether a round's deltas are trained from the state before, while that round's are scored (docs/adr/0048)."""
        return self.delay == 1

    @property
    def level_msat(self) -> Msat:
        """What one level of one worker pays; nothing in a run that is not paid."""
        return self.settlement.level_msat(len(self.scoring.levels_ppm))

    @property
    def places(self) -> int:
        """How many workers a round may list: in a paid run no more than its pool is meant for."""
        return min(self.settlement.slots, MAX_WORKERS) if self.settlement.mode == "hold" else MAX_WORKERS
