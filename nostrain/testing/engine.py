"""`ports.engine.Engine` without tensors: small text files instead of arrays, gains from a formula, virtual durations.

A file is one tagged JSON object. What a delta is follows from the checkpoint and the seed it was trained with, so the stub
notices what the real engine would: a blob that is no delta, a stale one, a copied one, one not trained on the assigned windows.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Final, TypeVar, assert_never

import msgspec
import trio

from nostrain.errors import LocalProtocolError, Unavailable
from nostrain.hashes import tagged_hash
from nostrain.protocol.dataset import DatasetManifest
from nostrain.protocol.dataset import Shard as DataShard
from nostrain.protocol.digests import next_state_id
from nostrain.protocol.jobs import (
    AggregateJob,
    AggregateResult,
    BuildRunJob,
    BuildRunResult,
    CalibrateJob,
    CalibrateResult,
    Candidate,
    CandidateScore,
    EvaluateJob,
    EvaluateResult,
    InspectJob,
    InspectResult,
    Job,
    JobResult,
    TrainJob,
    TrainResult,
    ValidationJob,
    ValidationResult,
)
from nostrain.protocol.manifest import BlobRef
from nostrain.units import Digest, Ppm, Pubkey

GAIN: Final = 1_000_000
"""The gain of an honest delta, in nanonats, before the noise of one validator's sample."""

SPEED: Final = 5_000
"""Tokens a second, of everybody."""

_NOISE: Final = 0.03
_WEIGHT: Final = 65_536
_SE: Final = 1_000
_SHARDS: Final = 12
_WEIGHTS: Final = "0" * 2048
"""As much as some eight deltas: catching up delta by delta is the cheaper way for a while."""


class Checkpoint(msgspec.Struct, frozen=True, tag="nostrain-stub-checkpoint"):
    """The model after `steps` outer steps, in state `state` (hex32); `before` is the digest of the file that the last one was taken from. Nobody
    looks at its weights, but they have to be transferred."""

    state: str
    steps: int
    before: str = ""
    weights: str = _WEIGHTS


class Delta(msgspec.Struct, frozen=True, tag="nostrain-stub-delta"):
    """What training from `checkpoint` (digest of the file) with `seed` gives."""

    checkpoint: str
    seed: str
    value: str


class Shard(msgspec.Struct, frozen=True, tag="nostrain-stub-shard"):
    """A piece of text that nobody reads."""

    value: str


class WorkerState(msgspec.Struct, frozen=True, tag="nostrain-stub-state"):
    """A worker's private state: how many rounds it has trained."""

    rounds: int


_File = TypeVar("_File", Checkpoint, Delta, Shard, WorkerState)


class StubEngine:
    """Runs one job at a time, in order of arrival, and takes `seconds[type of the job]` for it (0 if not given) on trio's clock.

    `quality` makes a worker's delta worth more or less than an honest one (1.0): 0 is useless, below 0 harmful. Share one mapping among all
    validators, who measure the same worker. `break_next` is the number of coming jobs during which the engine dies (Unavailable).
    """

    def __init__(self, quality: Mapping[Pubkey, float] | None = None, seconds: Mapping[type[Job], float] | None = None) -> None:
        self._quality = quality if quality is not None else {}
        self._seconds = seconds or {}
        self._turn = trio.Lock()
        self.break_next = 0
        self.ran: list[Job] = []
        """Every job that was run to its end."""

    async def run(self, job: Job) -> JobResult:
        """As `ports.engine.Engine.run`. Files are written at the end of the job's time, so a cancelled job leaves none."""
        async with self._turn:
            await trio.sleep(self._seconds.get(type(job), 0))
            if self.break_next > 0:
                self.break_next -= 1
                raise Unavailable("the engine process died (a stub's simulated death)")
            try:
                result = self._answer(job)
            except OSError as error:
                raise Unavailable(f"engine: {error}") from None
            self.ran.append(job)
            return result

    def _answer(self, job: Job) -> JobResult:
        match job:
            case BuildRunJob():
                return _build_run(job)
            case InspectJob():
                return _inspect(job)
            case CalibrateJob():
                return CalibrateResult(tokens=SPEED, train_ms=1000)
            case TrainJob():
                return _train(job)
            case EvaluateJob():
                return self._evaluate(job)
            case ValidationJob():
                return _validate(job)
            case AggregateJob():
                return _aggregate(job)
            case _:
                assert_never(job)

    def _evaluate(self, job: EvaluateJob) -> EvaluateResult:
        checkpoint = _need(job.checkpoint, Checkpoint)
        batches = max(1, job.scoring.unassigned_tokens // (job.scoring.eval_batch * job.training.sequence_length))
        before = tuple(_loss(checkpoint) + _spread(job.seed, str(batch), 50_000) for batch in range(batches))
        digests = [_digest(candidate.delta) for candidate in job.candidates]
        earlier = {digest for digest, _ in job.earlier}
        scores = []
        for candidate, digest in zip(job.candidates, digests, strict=True):
            score = self._score(job, candidate, before)
            if score.error is None:
                overlap = Ppm(1_000_000 if digest in earlier else 50_000)
                in_round = Ppm(1_000_000 if digests.count(digest) > 1 else 50_000)
                score = msgspec.structs.replace(score, overlap_ppm=overlap, overlap_round_ppm=in_round)
            scores.append(score)
        return EvaluateResult(before, tuple(scores), job.scoring.unassigned_tokens, evaluate_ms=1)

    def _score(self, job: EvaluateJob, candidate: Candidate, before: tuple[int, ...]) -> CandidateScore:
        delta = _read(candidate.delta, Delta)
        if isinstance(delta, str):
            return CandidateScore(candidate.worker, error=delta)
        as_assigned, at = delta.seed == candidate.window_seed, _need(job.checkpoint, Checkpoint)
        # On the windows that it was assigned a delta of the state before is what a delayed run asks for; anything else from there is stale.
        fresh = delta.checkpoint == _digest(job.checkpoint) or (as_assigned and delta.checkpoint == at.before)
        worth = self._quality.get(candidate.worker, 1.0) if fresh else 0.0
        gain = int(GAIN * worth) + int(_spread(job.seed, candidate.worker, int(GAIN * _NOISE)) * worth)
        return CandidateScore(
            candidate.worker,
            weight=_WEIGHT,
            gain=gain,
            losses_after=tuple(loss - gain for loss in before),
            assigned_gain=gain + (GAIN // 10 if as_assigned else 0),
            provenance=12 * _SE if as_assigned else 0,
            provenance_se=_SE,
        )


def _build_run(job: BuildRunJob) -> BuildRunResult:
    folder = Path(job.out_dir)
    folder.mkdir(parents=True, exist_ok=True)
    seed = job.seed.to_bytes(8, "big")
    blobs = []
    for number in range(_SHARDS + 1):
        path = folder / f"shard-{number:03}"
        blobs.append((_write(path, Shard(tagged_hash("nostrain/stub/shard", seed, bytes([number])).hex())), str(path)))
    shards = [DataShard(ref.sha256, ref.size, tokens=ref.size, text_bytes=ref.size) for ref, _ in blobs]
    dataset = DatasetManifest(shards=tuple(shards[:-1]), validation=shards[-1])
    path = folder / "dataset.json"
    blobs.append((_write_bytes(path, msgspec.json.encode(dataset)), str(path)))
    path = folder / "checkpoint"
    start = Checkpoint(state=tagged_hash("nostrain/stub/start", seed).hex(), steps=0)
    blobs.append((_write(path, start), str(path)))
    return BuildRunResult(
        dataset=blobs[-2][0],
        checkpoint=blobs[-1][0],
        root=_root(start),
        blobs=tuple(blobs),
        total_bytes=sum(ref.size for ref, _ in blobs),
        model=job.model,
    )


def _inspect(job: InspectJob) -> InspectResult:
    checkpoint = _read(job.checkpoint, Checkpoint)
    return InspectResult(None, error=checkpoint) if isinstance(checkpoint, str) else InspectResult(_root(checkpoint))


def _train(job: TrainJob) -> TrainResult:
    checkpoint = _need(job.checkpoint, Checkpoint)
    _need(job.shard, Shard)
    state = WorkerState(0) if job.state_in is None else _state(job.state_in)
    lost, rounds = ((state,), 0) if isinstance(state, str) else ((), state.rounds)
    digest = _digest(job.checkpoint)
    value = tagged_hash("nostrain/stub/delta", bytes.fromhex(digest), bytes.fromhex(job.seed)).hex()
    delta = _write(Path(job.delta_out), Delta(checkpoint=digest, seed=job.seed, value=value))
    _write(Path(job.state_out), WorkerState(rounds + 1))
    loss = _loss(checkpoint)
    tokens = job.training.inner_steps * job.training.batch_size * job.training.sequence_length
    return TrainResult(delta, loss, loss - GAIN, tokens, train_ms=1, encode_ms=1, lost=lost)


def _state(path: str) -> WorkerState | str:
    """The private state, or why there is none: it is done without, as a real engine does."""
    try:
        return _read(path, WorkerState)
    except FileNotFoundError as error:
        return str(error)


def _validate(job: ValidationJob) -> ValidationResult:
    checkpoint = _need(job.checkpoint, Checkpoint)
    _need(job.shard, Shard)
    return ValidationResult(_loss(checkpoint), job.tokens)


def _aggregate(job: AggregateJob) -> AggregateResult:
    checkpoint = _need(job.checkpoint, Checkpoint)
    for digest, path in job.deltas:
        delta = _read(path, Delta)
        if isinstance(delta, str):
            return AggregateResult(None, None, None, error=f"delta {digest}: {delta}")
    weights = (_WEIGHT,) * len(job.deltas)
    state = next_state_id(job.state_id, [digest for digest, _ in job.deltas], weights, job.outer, job.committed)
    after = Checkpoint(state=state, steps=checkpoint.steps + 1, before=_digest(job.checkpoint))
    return AggregateResult(state, _root(after), _write(Path(job.checkpoint_out), after), weights, aggregate_ms=1)


def _loss(checkpoint: Checkpoint) -> int:
    """Falls from that of uniform bytes towards a floor, in nanonats a token."""
    return 2_300_000_000 + 3_245_177_444 // (1 + checkpoint.steps)


def _spread(seed: str, label: str, width: int) -> int:
    """A number between -width and width, fixed by `seed` and `label`."""
    drawn = int.from_bytes(tagged_hash("nostrain/stub/spread", seed.encode(), label.encode())[:8], "big")
    return drawn % (2 * width + 1) - width


def _root(checkpoint: Checkpoint) -> Digest:
    return Digest(tagged_hash("nostrain/stub/root", msgspec.json.encode(checkpoint)).hex())


def _digest(path: str) -> Digest:
    return Digest(sha256(Path(path).read_bytes()).hexdigest())


def _write(path: Path, content: Checkpoint | Delta | Shard | WorkerState) -> BlobRef:
    return _write_bytes(path, msgspec.json.encode(content))


def _write_bytes(path: Path, data: bytes) -> BlobRef:
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.write_bytes(data)
    unfinished.rename(path)
    return BlobRef(Digest(sha256(data).hexdigest()), len(data))


def _read(path: str, kind: type[_File]) -> _File | str:
    """The file as `kind`, or why it is none."""
    try:
        return msgspec.json.decode(Path(path).read_bytes(), type=kind)
    except (msgspec.DecodeError, ValueError) as error:
        return f"not a {kind.__name__.lower()} of the stub engine: {error}"


def _need(path: str, kind: type[_File]) -> _File:
    content = _read(path, kind)
    if isinstance(content, str):
        raise LocalProtocolError(f"engine: {Path(path).name}: {content}")
    return content
