"""What a coordinator decides before its run exists: build dataset and first checkpoint, upload them, publish the manifest."""

from __future__ import annotations

from typing import Final

import msgspec

from nostrain.core.effects import Compute, Computed, Failed, Outcome, Upload, Uploaded
from nostrain.core.identity import RunPlan
from nostrain.core.rows import Preparation
from nostrain.core.timing import blocks_in, held_s
from nostrain.core.transaction import Transaction
from nostrain.errors import ConfigError, IllegalTransition
from nostrain.protocol.jobs import BuildRunJob, BuildRunResult
from nostrain.protocol.manifest import ModelSpec, RunManifest
from nostrain.protocol.tensors import parameter_count

KEY = "preparation"
MOST_UPLOADS: Final = 4
"""Blobs on their way to the servers at one time: a dataset may have thousands of shards."""
LEAST_DELTA_BYTES: Final = 1 << 20
"""What a delta may have in any run; a large model's may have a sixteenth of a byte for each parameter: more than the codec's longest."""
EXTRA_BLOCKS: Final = 34
"""What a hold has beside the blocks that its time may bring: 24 in which it is not settled any more, and some for delays."""


def decide(tx: Transaction) -> None:
    """Take the run that the operator planned one step closer to its manifest."""
    plan, row = tx.me.plan, tx.get(KEY, Preparation) or Preparation()
    if "coordinator" not in tx.me.roles or plan is None or tx.run is not None:
        return
    if row.manifest is None:
        tx.emit(Compute(owner=KEY, name="build", job=build_job(plan)))
        return
    for blob, path in row.missing[:MOST_UPLOADS]:
        tx.emit(Upload(owner=KEY, name=f"upload:{blob.sha256}", blob=blob, path=path, servers=plan.blob_servers))
    if not row.missing:
        tx.say("manifest", row.manifest)


def build_job(plan: RunPlan) -> BuildRunJob:
    """The job that cuts the text, or takes a built dataset, and draws the first checkpoint, or takes a pretrained one."""
    return BuildRunJob(
        text=plan.text,
        model=ModelSpec(),
        seed=plan.seed,
        shard_bytes=plan.shard_bytes,
        validation_bytes=plan.validation_bytes,
        out_dir=f"{plan.work_dir}/run",
        dataset=plan.dataset,
        init=plan.init,
        least_tokens=(plan.training.sequence_length, plan.scoring.validation_tokens),
    )


def built(plan: RunPlan, result: BuildRunResult) -> RunManifest:
    """The manifest of a run that was just built. Its holds are long enough for an epoch: h hours need 6h + 3σ blocks, and 34 (design section 7)."""
    length = min(plan.training.sequence_length, result.model.max_position_embeddings)
    manifest = RunManifest(
        name=plan.name,
        rounds=plan.rounds,
        min_workers=plan.min_workers,
        min_validators=plan.min_validators,
        threshold=plan.threshold,
        model=result.model,
        dataset=result.dataset,
        checkpoint=result.checkpoint,
        root=result.root,
        blob_servers=plan.blob_servers,
        relays=plan.relays,
        training=msgspec.structs.replace(plan.training, sequence_length=length),
        outer=plan.outer,
        scoring=plan.scoring,
        timing=plan.timing,
        settlement=plan.settlement,
        max_delta_bytes=max(LEAST_DELTA_BYTES, parameter_count(result.model) // 16),
        curations=plan.curations,
        delay=plan.delay or msgspec.UNSET,
    )
    needed = blocks_in(held_s(manifest)) + EXTRA_BLOCKS
    settlement = msgspec.structs.replace(plan.settlement, min_final_cltv=max(plan.settlement.min_final_cltv, needed))
    return msgspec.structs.replace(manifest, settlement=settlement)


def done(tx: Transaction, name: str, outcome: Outcome) -> None:
    """A step of the preparation ended. Raises ConfigError when the operator's run cannot be prepared: the next start tries again."""
    plan, row = tx.me.plan, tx.get(KEY, Preparation) or Preparation()
    match outcome:
        case Computed(result=BuildRunResult() as result) if plan is not None:
            if any(curation.tag("x") != result.dataset.sha256 for curation in plan.curations):
                raise ConfigError("coordinator.run.dataset", plan.dataset, "it is not the one that was signed any more", "Start again")
            tx.put(KEY, Preparation(missing=result.blobs, manifest=built(plan, result)))
            tx.note("info", "runs_built", f"built a run from {result.total_bytes} bytes of text")
        case Uploaded():
            digest = name.partition(":")[2]
            tx.put(KEY, msgspec.structs.replace(row, missing=tuple(pair for pair in row.missing if pair[0].sha256 != digest)))
        case Failed(reason=reason):
            raise ConfigError("coordinator.run", plan.name if plan else "", f"{name}: {reason}", "Mend the run's settings and start again")
        case _:
            raise IllegalTransition(f"{KEY}: {name} ended with {type(outcome).__name__}")
