"""The jobs around a run: make its data and first checkpoint, inspect a checkpoint, take the outer step. numpy alone."""

from __future__ import annotations

import time
from pathlib import Path

from nostrain.errors import RemoteProtocolError
from nostrain.learning.data import build_shards
from nostrain.learning.files import read_delta_untrusted
from nostrain.learning.initial import initial_parameters
from nostrain.protocol.digests import next_state_id
from nostrain.protocol.hf_config import config_json
from nostrain.protocol.jobs import AggregateJob, AggregateResult, BuildRunJob, BuildRunResult, InspectJob, InspectResult
from nostrain.protocol.tensors import model_tensors
from nostrain.sparseloco.aggregate import cap_weights, outer_step, step_weights
from nostrain.sparseloco.checkpoint import load_checkpoint_untrusted, merkle_root, write_checkpoint


def build_run(job: BuildRunJob) -> BuildRunResult:
    """Shards, validation shard, dataset manifest and initial checkpoint, all under `out_dir` (made if need be).

    Raises:
        LocalProtocolError: too little text, or a model that cannot be built.
        OSError: the disk is full or a file unreadable.
    """
    out = Path(job.out_dir)
    out.mkdir(parents=True, exist_ok=True)
    dataset, _, blobs, total = build_shards(job.text, job.seed, job.shard_bytes, job.validation_bytes, out)
    tensors, flat = model_tensors(job.model), initial_parameters(job.model, job.seed)
    path = out / "model.safetensors"
    checkpoint = write_checkpoint(path, tensors, flat)
    (out / "config.json").write_text(config_json(job.model))
    return BuildRunResult(dataset, checkpoint, tensors, merkle_root(tensors, flat), (*blobs, (checkpoint, str(path))), total)


def inspect(job: InspectJob) -> InspectResult:
    """Check a checkpoint file and compute its root; what is wrong with it becomes `error`.

    Raises:
        OSError: the file cannot be read.
    """
    try:
        return InspectResult(merkle_root(job.tensors, load_checkpoint_untrusted(job.checkpoint, job.tensors)))
    except RemoteProtocolError as error:
        return InspectResult(None, str(error))


def aggregate(job: AggregateJob) -> AggregateResult:
    """The outer step over `deltas`; writes the next checkpoint. A blob that is no delta becomes `error`, and nothing is written.

    Raises:
        RemoteProtocolError: the checkpoint is unusable.
        LocalProtocolError: more deltas than commitments, or a step that could overflow.
        OSError: a file cannot be read or written.
    """
    begin = time.perf_counter()
    flat = load_checkpoint_untrusted(job.checkpoint, job.tensors)
    deltas = []
    for digest, path in job.deltas:
        try:
            deltas.append(read_delta_untrusted(path, job.tensors, job.codec, digest))
        except RemoteProtocolError as error:
            return AggregateResult(None, None, None, error=f"{digest}: {error}")
    caps = cap_weights(deltas)
    after = outer_step(flat, deltas, step_weights(caps, job.outer, job.committed), out=flat)
    digests = [digest for digest, _ in job.deltas]
    return AggregateResult(
        state_id=next_state_id(job.state_id, digests, caps, job.outer, job.committed),
        root=merkle_root(job.tensors, after),
        checkpoint=write_checkpoint(job.checkpoint_out, job.tensors, after),
        weights=tuple(caps),
        aggregate_ms=round((time.perf_counter() - begin) * 1000),
    )
