"""What the simulations count on in the stub engine beyond the contract."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import trio
import trio.testing

from nostrain.errors import LocalProtocolError, Unavailable
from nostrain.protocol.dataset import DatasetManifest
from nostrain.protocol.jobs import BuildRunJob, BuildRunResult, Candidate, EvaluateJob, EvaluateResult, TrainJob
from nostrain.protocol.manifest import CodecSpec, ModelSpec, OuterSpec, ScoringSpec, TrainingSpec
from nostrain.testing.engine import GAIN, StubEngine
from nostrain.units import Pubkey

WORKERS = [Pubkey(f"{number:064x}") for number in range(4)]
SEEDS = [f"{number + 100:064x}" for number in range(4)]


async def build(engine: StubEngine, folder: Path) -> BuildRunResult:
    result = await engine.run(BuildRunJob(None, ModelSpec(), 3, 4096, 4096, str(folder / "run")))
    assert isinstance(result, BuildRunResult)
    return result


async def prepare(engine: StubEngine, folder: Path) -> tuple[EvaluateJob, list[TrainJob]]:
    """Four trained deltas and the job that scores them."""
    built = await build(engine, folder)
    paths = {ref.sha256: path for ref, path in built.blobs}
    dataset = msgspec.json.decode(Path(paths[built.dataset.sha256]).read_bytes(), type=DatasetManifest)
    shards = [paths[ref.sha256] for ref in dataset.shards]
    start = paths[built.checkpoint.sha256]
    training, codec = TrainingSpec(), CodecSpec()
    jobs = []
    for number, seed in enumerate(SEEDS):
        out = str(folder / f"{number}.delta"), str(folder / f"{number}.state")
        jobs.append(TrainJob(ModelSpec(), training, codec, start, shards[number], seed, 0, None, *out))
        await engine.run(jobs[-1])
    candidates = tuple(Candidate(worker, job.delta_out, job.shard, job.seed) for worker, job in zip(WORKERS, jobs, strict=True))
    unassigned = tuple(shards[8:10])
    return EvaluateJob(ModelSpec(), training, codec, OuterSpec(), ScoringSpec(), start, candidates, 4, unassigned, "a" * 64), jobs


async def scores(engine: StubEngine, job: EvaluateJob) -> EvaluateResult:
    result = await engine.run(job)
    assert isinstance(result, EvaluateResult)
    return result


async def test_honest_gains_differ_by_a_few_percent_and_by_seed(tmp_path: Path) -> None:
    engine = StubEngine()
    job, _ = await prepare(engine, tmp_path)
    gains = [score.gain for score in (await scores(engine, job)).scores]
    assert all(0.96 * GAIN < gain < 1.04 * GAIN for gain in gains)
    assert len(set(gains)) == 4
    others = [score.gain for score in (await scores(engine, msgspec.structs.replace(job, seed="b" * 64))).scores]
    assert others != gains
    losses = (await scores(StubEngine(), job)).losses_before
    after = (await scores(engine, job)).scores[0].losses_after
    assert [before - gains[0] for before in losses] == list(after)


async def test_quality_makes_a_worker_bad(tmp_path: Path) -> None:
    engine = StubEngine(quality={WORKERS[1]: 0.0, WORKERS[2]: -2.0})
    job, _ = await prepare(engine, tmp_path)
    good, useless, harmful, _ = (score.gain for score in (await scores(engine, job)).scores)
    assert useless == 0
    assert harmful < -GAIN < GAIN // 2 < good


async def test_a_stale_delta_is_worth_nothing(tmp_path: Path) -> None:
    engine = StubEngine()
    job, _ = await prepare(engine, tmp_path)
    later = tmp_path / "later"
    later.write_bytes(Path(job.checkpoint).read_bytes().replace(b'"steps":0', b'"steps":1'))
    assert {score.gain for score in (await scores(engine, msgspec.structs.replace(job, checkpoint=str(later)))).scores} == {0}


async def test_copies_and_unassigned_training_are_noticed(tmp_path: Path) -> None:
    engine = StubEngine()
    job, _ = await prepare(engine, tmp_path)
    first, second, *rest = job.candidates
    copy = msgspec.structs.replace(second, delta=first.delta)
    result = await scores(engine, msgspec.structs.replace(job, candidates=(first, copy, *rest)))
    assert [score.overlap_round_ppm for score in result.scores] == [1_000_000, 1_000_000, 50_000, 50_000]
    assert result.scores[0].provenance > 6 * result.scores[0].provenance_se
    assert result.scores[1].provenance == 0


async def test_jobs_take_virtual_time_one_after_another(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    engine = StubEngine(seconds={BuildRunJob: 40, TrainJob: 5})
    begin = trio.current_time()
    await prepare(engine, tmp_path)
    assert trio.current_time() - begin == pytest.approx(40 + 4 * 5)


async def test_a_cancelled_job_leaves_nothing(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    engine = StubEngine(seconds={BuildRunJob: 40})
    with trio.move_on_after(39):
        await build(engine, tmp_path)
    assert not (tmp_path / "run").exists()
    assert engine.ran == []
    await build(engine, tmp_path)


async def test_it_dies_as_often_as_it_is_told(tmp_path: Path) -> None:
    engine = StubEngine()
    engine.break_next = 2
    for _ in range(2):
        with pytest.raises(Unavailable):
            await build(engine, tmp_path)
    assert (await build(engine, tmp_path)).total_bytes > 0


async def test_training_on_what_is_no_shard_is_our_mistake(tmp_path: Path) -> None:
    engine = StubEngine()
    _, jobs = await prepare(engine, tmp_path)
    with pytest.raises(LocalProtocolError, match="not a shard"):
        await engine.run(msgspec.structs.replace(jobs[0], shard=jobs[0].checkpoint))
