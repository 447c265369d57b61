"""The jobs around a run: make its data and first checkpoint, inspect a checkpoint, take the outer step. numpy alone."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from nostrain.errors import LocalProtocolError, RemoteProtocolError
from nostrain.hashes import sha256_hex
from nostrain.learning.data import build_shards
from nostrain.learning.engines.base import Flat
from nostrain.learning.files import read_blob_untrusted
from nostrain.learning.initial import initial_parameters
from nostrain.learning.pretrained import check_tokens, load_pretrained
from nostrain.learning.resident import ResidentModel
from nostrain.protocol.dataset import MANIFEST_FILE, DatasetManifest, dataset_problem, files_of
from nostrain.protocol.digests import next_state_id
from nostrain.protocol.hf_config import config_json
from nostrain.protocol.jobs import AggregateJob, AggregateResult, BuildRunJob, BuildRunResult, InspectJob, InspectResult
from nostrain.protocol.manifest import BlobRef, ModelSpec
from nostrain.protocol.tensors import model_tensors
from nostrain.sparseloco.aggregate import caps_of, step_blocks
from nostrain.sparseloco.checkpoint import (
    checkpoint_root_untrusted,
    map_checkpoint_untrusted,
    merkle_root,
    stream_checkpoint,
    write_checkpoint,
)
from nostrain.sparseloco.rules import plan_step
from nostrain.sparseloco.stack import Stack
from nostrain.units import Digest


def build_run(job: BuildRunJob) -> BuildRunResult:
    """Shards, validation shard, dataset manifest (of a built dataset: as they are) and, under `out_dir` (made if need be), the first checkpoint.

    Raises:
        LocalProtocolError: too little text, a folder that is no dataset, or a model that cannot be built.
        OSError: the disk is full or a file unreadable.
    """
    out = Path(job.out_dir)
    out.mkdir(parents=True, exist_ok=True)
    if job.dataset is None:
        dataset, manifest, blobs, total = build_shards(job.text, job.seed, job.shard_bytes, job.validation_bytes, out)
    else:
        dataset, manifest, blobs, total = open_dataset(Path(job.dataset), job.least_tokens)
    model, flat = first_parameters(job, manifest)
    tensors = model_tensors(model)
    path = out / "model.safetensors"
    checkpoint = write_checkpoint(path, tensors, flat)
    (out / "config.json").write_text(config_json(model))
    return BuildRunResult(dataset, checkpoint, merkle_root(tensors, flat), (*blobs, (checkpoint, str(path))), total, model)


def first_parameters(job: BuildRunJob, dataset: DatasetManifest) -> tuple[ModelSpec, Flat]:
    """The model that the run begins with: drawn from the seed, with the dataset's vocabulary; or the pretrained one of `job.init`.

    Raises:
        LocalProtocolError: the folder is no checkpoint that we can train, or its tokens are not the dataset's.
        OSError: a file of it cannot be read.
    """
    if job.init is None:
        model = msgspec.structs.replace(job.model, vocab_size=dataset.vocab_size)
        return model, initial_parameters(model, job.seed)
    folder = Path(job.init)
    model, flat = load_pretrained(folder)
    check_tokens(folder, model, dataset)
    return model, flat


def open_dataset(folder: Path, least: tuple[int, int]) -> tuple[BlobRef, DatasetManifest, list[tuple[BlobRef, str]], int]:
    """A built dataset as `build_shards` gives it. Sizes are compared here, digests when the files are taken into the store.

    `least`: tokens that a shard, and the validation shard, must have more of.

    Raises:
        LocalProtocolError: the folder is not a dataset, a file is missing or of another size, or there are too few tokens.
    """
    path = folder / MANIFEST_FILE
    try:
        data = path.read_bytes()
        manifest = msgspec.json.decode(data, type=DatasetManifest)
        problem = dataset_problem(manifest)
        files = [(blob, folder / name) for name, blob in files_of(manifest)]
        problem = problem or next((f"{file.name} has another size" for blob, file in files if file.stat().st_size != blob.size), None)
    except (OSError, msgspec.DecodeError) as error:
        raise LocalProtocolError(f"{folder}: not a dataset that `nostrain-ctl data build` made: {error}") from error
    shortest, wanted = min(shard.tokens for shard in manifest.shards), least
    if problem is None and (shortest <= wanted[0] or manifest.validation.tokens <= wanted[1]):
        problem = (
            f"shards of {shortest} and validation of {manifest.validation.tokens} tokens; more than {wanted[0]} and {wanted[1]} are needed"
        )
    if problem is not None:
        raise LocalProtocolError(f"{path}: {problem}")
    blob = BlobRef(Digest(sha256_hex(data)), len(data))
    blobs = [(BlobRef(blob.sha256, blob.size), str(file.absolute())) for blob, file in files]
    return blob, manifest, [*blobs, (blob, str(path.absolute()))], sum(shard.text_bytes for shard in manifest.shards)


def inspect(job: InspectJob) -> InspectResult:
    """Check a checkpoint file and compute its root, without holding more of it than a few MiB; what is wrong with it becomes `error`.

    Raises:
        OSError: the file cannot be read.
    """
    try:
        return InspectResult(checkpoint_root_untrusted(job.checkpoint, job.tensors))
    except RemoteProtocolError as error:
        return InspectResult(None, str(error))


def aggregate(job: AggregateJob, resident: ResidentModel, threads: int = 1) -> AggregateResult:
    """The outer step over `deltas`; writes the next checkpoint. A blob that is no delta becomes `error`, and nothing is written.

    The checkpoint before is memory-mapped and the next one written while it is computed, so that of θ only some MB are held; the decoded
    deltas are held whole, two bytes a kept value. The result does not depend on `threads`.

    Raises:
        RemoteProtocolError: the checkpoint is unusable.
        LocalProtocolError: more deltas than commitments, a step that could overflow, or a weight is not finite.
        OSError: a file cannot be read or written.
    """
    begin = time.perf_counter()
    flat = map_checkpoint_untrusted(job.checkpoint, job.tensors)

    deltas = Stack(job.tensors, job.codec, len(job.deltas))

    def read(at: int) -> str | None:
        digest, path = job.deltas[at]
        try:
            deltas.read_untrusted(at, read_blob_untrusted(path, job.tensors, job.codec, digest))
        except RemoteProtocolError as error:
            return f"{digest}: {error}"
        return None

    with ThreadPoolExecutor(threads) as pool:
        for error in pool.map(read, range(len(deltas))):
            if error is not None:
                return AggregateResult(None, None, None, error=error)
    caps = caps_of(deltas.squared_norms)
    after = step_blocks(flat, deltas, plan_step(caps, job.outer, job.committed), threads=threads)
    checkpoint, root = stream_checkpoint(job.checkpoint_out, job.tensors, after)
    digests = [digest for digest, _ in job.deltas]
    resident.advance(job.model, job.checkpoint, job.checkpoint_out)
    return AggregateResult(
        state_id=next_state_id(job.state_id, digests, caps, job.outer, job.committed),
        root=root,
        checkpoint=checkpoint,
        weights=tuple(caps),
        aggregate_ms=round((time.perf_counter() - begin) * 1000),
    )
