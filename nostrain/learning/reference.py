"""The reference loop: a whole run in one process, from the same jobs, to compare the daemons' digests with.

`python -m nostrain.learning.reference SPEC.json OUT.json` reads a `ReferenceSpec` and writes a list of `RoundState`. It knows nothing of relays, keys or
phases: every worker trains, the accepted deltas are applied in the order given. A worker whose delta was not accepted keeps the private
state of the round before, unless none ever was and those of others were: then that of the delta which it showed. In a delayed run (docs/adr/0048) it goes on from the private state of every delta that it committed to, and from that
of the last one that was accepted when it committed to none; it begins with the outer step over that delta of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import msgspec

from nostrain.errors import LocalProtocolError
from nostrain.hashes import sha256_hex
from nostrain.learning.beside import EngineBeside
from nostrain.learning.blas import prepare_process
from nostrain.learning.dispatch import run_job
from nostrain.protocol.assignment import assigned_ahead, assigned_slot
from nostrain.protocol.dataset import DatasetManifest
from nostrain.protocol.digests import initial_state_id
from nostrain.protocol.engines import EngineKind
from nostrain.protocol.jobs import AggregateJob, AggregateResult, Job, JobResult, OwnStep, TrainJob, TrainResult
from nostrain.protocol.manifest import BlobRef, RunManifest
from nostrain.units import Digest, Pubkey


class RoundSpec(msgspec.Struct, frozen=True):
    """Who took part in a round: `workers` by slot, the `accepted` in the order of aggregation, R = `committed`, after `attempt` empty rounds.

    `trained`: who committed to a delta. A delayed run needs it, and its empty rounds too. `shown`: who revealed one; a newcomer's state needs it.
    """

    round: int
    workers: tuple[Pubkey, ...]
    accepted: tuple[Pubkey, ...]
    committed: int
    attempt: int = 0
    trained: tuple[Pubkey, ...] = ()
    shown: tuple[Pubkey, ...] = ()


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


@dataclass(frozen=True)
class Stand:
    """A state that the loop has reached, and its file."""

    state_id: Digest
    checkpoint: str


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
    delayed = spec.manifest.delayed
    here = Stand(initial_state_id(spec.manifest.root), checked_blob(spec.blobs, spec.manifest.checkpoint.sha256))
    before = here
    used: dict[Pubkey, str] = {}
    proven: set[Pubkey] = set()
    latest: dict[Pubkey, tuple[str, OwnStep]] = {}
    history = []
    for turn in spec.rounds:
        folder = Path(spec.work_dir) / f"round-{turn.round:05d}"
        folder.mkdir(parents=True, exist_ok=True)
        made = {}
        for worker in turn.workers:
            state_in, own = latest.get(worker, (used.get(worker), None))
            result = engines[worker](_train_job(spec, turn, worker, here, before, state_in, own, folder))
            assert isinstance(result, TrainResult)
            made[worker] = (result.delta.sha256, str(_file(folder, turn, worker, "delta")))
        proven |= {*turn.accepted}
        new = [worker for worker in turn.shown if worker in made and worker not in proven] if turn.accepted and not delayed else []
        used |= {worker: str(_file(folder, turn, worker, "state")) for worker in (*turn.accepted, *new)}
        going = [worker for worker in turn.trained if worker in made] if delayed else []
        latest = {worker: (str(_file(folder, turn, worker, "state")), _own_step(spec, turn, *made[worker])) for worker in going}
        before = here
        if turn.accepted:
            after = _aggregate(spec, turn, here, tuple(made[worker] for worker in turn.accepted), folder)
            here = Stand(after.state_id, str(folder / "model.safetensors"))
            history.append(after)
    return history


def _own_step(spec: ReferenceSpec, turn: RoundSpec, digest: Digest, path: str) -> OwnStep:
    """What a worker that committed to a delta begins its next training with."""
    return OwnStep(spec.manifest.outer, digest, path, len(turn.workers))


def _file(folder: Path, turn: RoundSpec, worker: Pubkey, kind: str) -> Path:
    """What a worker's training wrote."""
    return folder / f"{turn.workers.index(worker)}.{kind}"


def _train_job(
    spec: ReferenceSpec,
    turn: RoundSpec,
    worker: Pubkey,
    here: Stand,
    before: Stand,
    state_in: str | None,
    own: OwnStep | None,
    folder: Path,
) -> TrainJob:
    """A worker's training on the state `here`, or, in a delayed run, on the one `before`."""
    manifest, base, shards = spec.manifest, before if spec.manifest.delayed else here, len(spec.dataset.shards)
    if manifest.delayed:
        work = assigned_ahead(base.state_id, turn.round, worker, shards)
    else:
        work = assigned_slot(here.state_id, turn.attempt, turn.workers.index(worker), shards)
    return TrainJob(
        model=manifest.model,
        training=manifest.training,
        codec=manifest.codec,
        checkpoint=base.checkpoint,
        shard=checked_blob(spec.blobs, spec.dataset.shards[work.shard].sha256),
        seed=work.seed,
        steps_done=(turn.round - 1) * manifest.training.inner_steps,
        state_in=state_in,
        delta_out=str(_file(folder, turn, worker, "delta")),
        state_out=str(_file(folder, turn, worker, "state")),
        dtype=spec.dataset.dtype,
        own=own,
    )


def _aggregate(spec: ReferenceSpec, turn: RoundSpec, here: Stand, deltas: tuple[tuple[Digest, str], ...], folder: Path) -> RoundState:
    manifest = spec.manifest
    result = run_job(
        AggregateJob(
            model=manifest.model,
            codec=manifest.codec,
            outer=manifest.outer,
            state_id=here.state_id,
            checkpoint=here.checkpoint,
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
