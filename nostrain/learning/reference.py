"""The reference loop: a whole run in one process, from the same jobs, to compare the daemons' digests with.

`python -m nostrain.learning.reference SPEC.json OUT.json` reads a `ReferenceSpec` and writes a list of `RoundState`. It knows nothing of relays, keys or
phases: every worker trains, the accepted deltas are applied in the order given. A worker whose delta was not accepted keeps the private
state of the round before.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

import msgspec

from nostrain.errors import LocalProtocolError
from nostrain.hashes import sha256_hex
from nostrain.learning.beside import EngineBeside
from nostrain.learning.blas import prepare_process
from nostrain.learning.dispatch import run_job
from nostrain.protocol.assignment import assignment, shard_index, window_seed
from nostrain.protocol.dataset import DatasetManifest
from nostrain.protocol.digests import initial_state_id
from nostrain.protocol.engines import EngineKind
from nostrain.protocol.jobs import AggregateJob, AggregateResult, Job, JobResult, TrainJob, TrainResult
from nostrain.protocol.manifest import BlobRef, RunManifest
from nostrain.units import Digest, Pubkey


class RoundSpec(msgspec.Struct, frozen=True):
    """Who took part in a round: `workers` by slot, the `accepted` in the order of aggregation, R = `committed`, after `attempt` empty rounds."""

    round: int
    workers: tuple[Pubkey, ...]
    accepted: tuple[Pubkey, ...]
    committed: int
    attempt: int = 0


class ReferenceSpec(msgspec.Struct, frozen=True):
    """A run to repeat: `blobs` maps the digests of shards and initial checkpoint to files, `engines` workers to what they train with."""

    manifest: RunManifest
    dataset: DatasetManifest
    blobs: dict[Digest, str]
    rounds: tuple[RoundSpec, ...]
    work_dir: str
    engines: dict[Pubkey, EngineKind] = {}


class RoundState(msgspec.Struct, frozen=True):
    """The state after a round: identity, Merkle root, and the checkpoint blob (its file is `round-<n>/model.safetensors`)."""

    round: int
    state_id: Digest
    root: Digest
    checkpoint: BlobRef


RunJob = Callable[[Job], JobResult]


def repeat_run(spec: ReferenceSpec) -> list[RoundState]:
    """Repeat every round of `spec`, in order. What is not trained by pytorch, in this process, is trained by an engine process of its kind.

    Raises:
        LocalProtocolError: a blob is missing or another than its digest says, or an accepted delta cannot be used.
        RemoteProtocolError: the initial checkpoint is not one of the manifest's model.
        OSError: a file cannot be read or written.
    """
    with ExitStack() as stack:
        engines: dict[EngineKind, RunJob] = {"pytorch": run_job}
        for kind in set(spec.engines.values()) - set(engines):
            engines[kind] = stack.enter_context(EngineBeside(kind)).run
        return _repeat(spec, {worker: engines[spec.engines.get(worker, "pytorch")] for turn in spec.rounds for worker in turn.workers})


def _repeat(spec: ReferenceSpec, engines: Mapping[Pubkey, RunJob]) -> list[RoundState]:
    state_id = initial_state_id(spec.manifest.root)
    checkpoint = checked_blob(spec.blobs, spec.manifest.checkpoint.sha256)
    states: dict[Pubkey, str] = {}
    history = []
    for turn in spec.rounds:
        folder = Path(spec.work_dir) / f"round-{turn.round:05d}"
        folder.mkdir(parents=True, exist_ok=True)
        made = {}
        for slot, worker in enumerate(turn.workers):
            result = engines[worker](_train_job(spec, turn, slot, state_id, checkpoint, states.get(worker), folder))
            assert isinstance(result, TrainResult)
            made[worker] = (result, str(folder / f"{slot}.state"))
        chosen = tuple((made[worker][0].delta.sha256, str(folder / f"{turn.workers.index(worker)}.delta")) for worker in turn.accepted)
        after = _aggregate(spec, turn, state_id, checkpoint, chosen, folder)
        states |= {worker: made[worker][1] for worker in turn.accepted}
        state_id, checkpoint = after.state_id, str(folder / "model.safetensors")
        history.append(after)
    return history


def _train_job(
    spec: ReferenceSpec, turn: RoundSpec, slot: int, state_id: Digest, checkpoint: str, state_in: str | None, folder: Path
) -> TrainJob:
    manifest = spec.manifest
    basis = assignment(state_id, turn.attempt)
    shard = spec.dataset.shards[shard_index(basis, slot, len(spec.dataset.shards))]
    return TrainJob(
        model=manifest.model,
        training=manifest.training,
        codec=manifest.codec,
        checkpoint=checkpoint,
        shard=checked_blob(spec.blobs, shard.sha256),
        seed=window_seed(basis, slot),
        steps_done=(turn.round - 1) * manifest.training.inner_steps,
        state_in=state_in,
        delta_out=str(folder / f"{slot}.delta"),
        state_out=str(folder / f"{slot}.state"),
        dtype=spec.dataset.dtype,
    )


def _aggregate(
    spec: ReferenceSpec, turn: RoundSpec, state_id: Digest, checkpoint: str, deltas: tuple[tuple[Digest, str], ...], folder: Path
) -> RoundState:
    manifest = spec.manifest
    result = run_job(
        AggregateJob(
            model=manifest.model,
            codec=manifest.codec,
            outer=manifest.outer,
            state_id=state_id,
            checkpoint=checkpoint,
            deltas=deltas,
            committed=turn.committed,
            checkpoint_out=str(folder / "model.safetensors"),
        )
    )
    assert isinstance(result, AggregateResult)
    if result.state_id is None or result.root is None or result.checkpoint is None:
        raise LocalProtocolError(f"round {turn.round}: {result.error}")
    return RoundState(turn.round, result.state_id, result.root, result.checkpoint)


def checked_blob(blobs: dict[Digest, str], digest: Digest) -> str:
    """The file of a blob, after hashing it.

    Raises:
        LocalProtocolError: there is none, or it has another digest.
    """
    path = blobs.get(digest)
    if path is None or sha256_hex(Path(path).read_bytes()) != digest:
        raise LocalProtocolError(f"reference: blob {digest} is missing or damaged")
    return path


def main(arguments: list[str]) -> int:
    """Run SPEC.json, write OUT.json; exit status 2 if called wrongly."""
    if len(arguments) != 2:
        print("usage: python -m nostrain.learning.reference SPEC.json OUT.json", file=sys.stderr)
        return 2
    spec = msgspec.json.decode(Path(arguments[0]).read_bytes(), type=ReferenceSpec)
    Path(arguments[1]).write_bytes(msgspec.json.encode(repeat_run(spec)))
    return 0


if __name__ == "__main__":
    prepare_process("pytorch")  # as the engine processes do, whose bits are to be repeated
    sys.exit(main(sys.argv[1:]))
