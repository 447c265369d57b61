"""What every engine promises (ports.engine): the stub of the simulations and the real process do the same round of work."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest

from nostrain.engine import EngineProcess, EngineSettings
from nostrain.errors import LocalProtocolError, Unavailable
from nostrain.ports.engine import Engine
from nostrain.protocol.dataset import DatasetManifest
from nostrain.protocol.digests import initial_state_id
from nostrain.protocol.jobs import (
    AggregateJob,
    AggregateResult,
    BuildRunJob,
    BuildRunResult,
    CalibrateJob,
    CalibrateResult,
    Candidate,
    EvaluateJob,
    EvaluateResult,
    InspectJob,
    InspectResult,
    TrainJob,
    TrainResult,
    ValidationJob,
    ValidationResult,
)
from nostrain.protocol.manifest import BlobRef, CodecSpec, ModelSpec, OuterSpec, ScoringSpec, TrainingSpec
from nostrain.testing.engine import StubEngine
from nostrain.units import Digest, Pubkey

MODEL = ModelSpec(
    hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=16
)
TRAINING = TrainingSpec(inner_steps=3, batch_size=2, sequence_length=16)
CODEC = CodecSpec()
SCORING = ScoringSpec(unassigned_tokens=256, assigned_tokens=128, validation_tokens=256, eval_batch=4)
WORKERS = [Pubkey(f"{number:064x}") for number in range(3)]


@pytest.fixture(params=["stub", *(pytest.param(kind, marks=pytest.mark.timeout(120)) for kind in ("pytorch", "mlx"))])
def kind(request: pytest.FixtureRequest) -> str:
    if request.param == "pytorch":
        pytest.importorskip("torch", reason="torch is not installed: THE ENGINE `pytorch` IS NOT TESTED")
    if request.param == "mlx":
        pytest.importorskip("mlx.core", reason="mlx is not installed: THE ENGINE `mlx` IS NOT TESTED")
    return str(request.param)


@asynccontextmanager
async def opened(kind: str) -> AsyncIterator[Engine]:
    if kind == "stub":
        yield StubEngine()
    else:
        async with EngineProcess.open(EngineSettings(arguments=("--engine", kind, "--device", "cpu"))) as engine:
            yield engine


class Run:
    """A run's files, and the jobs on them."""

    def __init__(self, engine: Engine, folder: Path, built: BuildRunResult) -> None:
        self.engine, self.folder, self.built = engine, folder, built
        self.path = {ref.sha256: path for ref, path in built.blobs}
        dataset = msgspec.json.decode(Path(self.path[built.dataset.sha256]).read_bytes(), type=DatasetManifest)
        self.shards = [self.path[ref.sha256] for ref in dataset.shards]
        self.validation = self.path[dataset.validation.sha256]
        self.checkpoint = self.path[built.checkpoint.sha256]

    @classmethod
    async def build(cls, engine: Engine, folder: Path, rng: random.Random) -> Run:
        text = folder / "text"
        text.mkdir()
        words = ["gradient", "relay", "the", "of", "and", "loss", "event", "\n"]
        (text / "a.txt").write_text(" ".join(rng.choice(words) for _ in range(8000)))
        job = BuildRunJob(str(text), MODEL, seed=7, shard_bytes=4096, validation_bytes=4096, out_dir=str(folder / "run"))
        built = await engine.run(job)
        assert isinstance(built, BuildRunResult)
        return cls(engine, folder, built)

    def train_job(self, name: str, seed: str, shard: int = 0) -> TrainJob:
        out = str(self.folder / f"{name}.delta"), str(self.folder / f"{name}.state")
        return TrainJob(MODEL, TRAINING, CODEC, self.checkpoint, self.shards[shard], seed, 0, None, *out)

    async def train(self, name: str, seed: str, shard: int = 0) -> tuple[BlobRef, str]:
        job = self.train_job(name, seed, shard)
        result = await self.engine.run(job)
        assert isinstance(result, TrainResult)
        assert result.tokens == 3 * 2 * 16
        return result.delta, job.delta_out

    async def evaluate(self, candidates: list[Candidate], earlier: tuple[tuple[BlobRef, str], ...] = ()) -> EvaluateResult:
        job = EvaluateJob(
            MODEL,
            TRAINING,
            CODEC,
            OuterSpec(),
            SCORING,
            self.checkpoint,
            tuple(candidates),
            committed=len(candidates),
            unassigned=tuple(self.shards[2:4]),
            seed="e" * 64,
            earlier=tuple((ref.sha256, path) for ref, path in earlier),
        )
        result = await self.engine.run(job)
        assert isinstance(result, EvaluateResult)
        return result

    async def aggregate(self, deltas: list[tuple[BlobRef, str]], name: str) -> AggregateResult:
        state = initial_state_id(self.built.root)
        named = tuple((ref.sha256, path) for ref, path in deltas)
        job = AggregateJob(MODEL, CODEC, OuterSpec(), state, self.checkpoint, named, len(deltas), str(self.folder / name))
        result = await self.engine.run(job)
        assert isinstance(result, AggregateResult)
        return result

    async def inspect(self, path: str) -> InspectResult:
        result = await self.engine.run(InspectJob(MODEL, path))
        assert isinstance(result, InspectResult)
        return result


def is_blob(ref: BlobRef, path: str) -> bool:
    data = Path(path).read_bytes()
    return ref.sha256 == sha256(data).hexdigest() and ref.size == len(data)


async def test_a_round_of_work(kind: str, tmp_path: Path, rng: random.Random) -> None:
    """Build, train, score, aggregate, inspect, validate: one process start for the real engine, so one test."""
    async with opened(kind) as engine:
        run = await Run.build(engine, tmp_path, rng)
        assert all(is_blob(ref, path) for ref, path in run.built.blobs)
        assert (await run.inspect(run.checkpoint)).root == run.built.root
        speed = await engine.run(CalibrateJob(MODEL, TRAINING))
        assert isinstance(speed, CalibrateResult)
        assert min(speed.tokens, speed.train_ms) > 0

        seeds = [f"{number + 1:064x}" for number in range(2)]
        deltas = [await run.train(f"w{number}", seed, number) for number, seed in enumerate(seeds)]
        assert all(is_blob(ref, path) for ref, path in deltas)
        assert deltas[0][0].sha256 != deltas[1][0].sha256
        assert (await run.train("again", seeds[0], 0))[0] == deltas[0][0]
        gone = msgspec.structs.replace(run.train_job("afresh", seeds[0], 0), state_in=str(tmp_path / "gone"))
        afresh = await engine.run(gone)
        assert isinstance(afresh, TrainResult)
        assert (afresh.delta, len(afresh.lost)) == (deltas[0][0], 1), "begun without what was lost"

        await check_scores(run, deltas, seeds)
        await check_next_checkpoint(run, deltas)

        validation = ValidationJob(MODEL, run.checkpoint, run.validation, 256, 16, 4)
        result = await engine.run(validation)
        assert isinstance(result, ValidationResult)
        assert result.tokens == 256
        assert 1_000_000_000 < result.loss_nanonats < 8_000_000_000


async def check_scores(run: Run, deltas: list[tuple[BlobRef, str]], seeds: list[str]) -> None:
    bad = run.folder / "bad.delta"
    bad.write_bytes(b"no delta at all")
    honest = [Candidate(WORKERS[number], deltas[number][1], run.shards[number], seeds[number]) for number in range(2)]
    hostile = Candidate(WORKERS[2], str(bad), run.shards[1], "c" * 64)
    result = await run.evaluate([*honest, hostile], earlier=(deltas[1],))
    assert [score.worker for score in result.scores] == WORKERS
    assert result.scores[2].error
    assert "\n" not in result.scores[2].error
    for score in result.scores[:2]:
        assert score.error is None
        assert 0 < score.weight <= 65_536
        assert score.gain != 0
        assert len(score.losses_after) == len(result.losses_before)
    assert result.scores[1].overlap_ppm > 900_000 > result.scores[0].overlap_ppm
    same = await run.evaluate([*honest, hostile], earlier=(deltas[1],))
    assert msgspec.structs.replace(same, evaluate_ms=0) == msgspec.structs.replace(result, evaluate_ms=0)


async def check_next_checkpoint(run: Run, deltas: list[tuple[BlobRef, str]]) -> None:
    result = await run.aggregate(deltas, "next")
    assert result.error is None
    assert result.checkpoint is not None
    assert is_blob(result.checkpoint, str(run.folder / "next"))
    assert len(result.weights) == 2
    assert (await run.inspect(str(run.folder / "next"))).root == result.root != run.built.root
    again = await run.aggregate(deltas, "again")
    assert (again.state_id, again.root, again.checkpoint) == (result.state_id, result.root, result.checkpoint)
    swapped = await run.aggregate(deltas[::-1], "swapped")
    assert swapped.state_id != result.state_id

    bad = run.folder / "bad.delta"
    refused = await run.aggregate([deltas[0], (BlobRef(deltas[1][0].sha256, 15), str(bad))], "refused")
    assert refused.error
    assert deltas[1][0].sha256 in refused.error
    assert refused.checkpoint is None
    assert not (run.folder / "refused").exists()
    assert (await run.inspect(str(bad))).error


async def test_wrong_jobs_are_told_from_bad_luck(kind: str, tmp_path: Path, rng: random.Random) -> None:
    async with opened(kind) as engine:
        checkpoint = tmp_path / "no-checkpoint"
        checkpoint.write_bytes(b"{}")
        state = initial_state_id(Digest("0" * 64))
        job = AggregateJob(MODEL, CODEC, OuterSpec(), state, str(checkpoint), (), 1, str(tmp_path / "out"))
        with pytest.raises(LocalProtocolError):
            await engine.run(job)
        with pytest.raises(Unavailable):
            await engine.run(msgspec.structs.replace(job, checkpoint=str(tmp_path / "missing")))
        assert not (tmp_path / "out").exists()
