"""One small run, built once: a Llama of 30 thousand parameters on a few kilobytes of text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from nostrain.learning.dispatch import run_job
from nostrain.protocol.assignment import shard_index, window_seed
from nostrain.protocol.digests import initial_state_id
from nostrain.protocol.engines import EngineKind
from nostrain.protocol.jobs import BuildRunJob, BuildRunResult, TrainJob
from nostrain.protocol.manifest import CodecSpec, ModelSpec, OuterSpec, RunManifest, ScoringSpec, TrainingSpec
from nostrain.units import Digest

MODEL = ModelSpec(
    hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=32
)
TRAINING = TrainingSpec(inner_steps=4, batch_size=2, sequence_length=32, warmup_steps=4, learning_rate_ppb=10_000_000)
CODEC = CodecSpec(chunk=256, topk=32)
OUTER = OuterSpec()
FRAMEWORKS: dict[EngineKind, str] = {"pytorch": "torch", "mlx": "mlx.core"}
SCORING = ScoringSpec(unassigned_tokens=32 * 10, assigned_tokens=32 * 3, eval_batch=4)
WORKERS = 3


@pytest.fixture(scope="module", params=FRAMEWORKS)
def kind(request: pytest.FixtureRequest) -> EngineKind:
    """Each engine in turn; aloud where its framework is not installed."""
    name: EngineKind = request.param
    pytest.importorskip(FRAMEWORKS[name], reason=f"{FRAMEWORKS[name]} is not installed: THE ENGINE `{name}` IS NOT TESTED")
    return name


def write_text(folder: Path) -> None:
    """Twenty files, about 45 kB in all, of few words each; the letters differ from file to file, so a shard can be told from another."""
    words = ["the", "run", "of", "many", "trains", "one", "model", "and", "pays", "for", "it", "in", "sats"]
    for number in range(20):
        text = " ".join(words[(number * 31 + at * at + at // 7) % len(words)] for at in range(500))
        shifted = "".join(letter if letter == " " else chr(33 + (ord(letter) + 11 * number) % 90) for letter in text)
        (folder / f"{number:02d}.txt").write_text(shifted)


@dataclass(frozen=True)
class SmallRun:
    """A built run: `result` as the engine gave it, `paths` by digest, `state_id` of round 0."""

    result: BuildRunResult
    paths: dict[Digest, str]
    shards: tuple[str, ...]
    validation: str
    checkpoint: str
    state_id: Digest

    def manifest(self, rounds: int) -> RunManifest:
        """Of a run that begins so."""
        return RunManifest(
            name="test",
            rounds=rounds,
            min_workers=1,
            min_validators=1,
            threshold=1,
            model=MODEL,
            dataset=self.result.dataset,
            checkpoint=self.result.checkpoint,
            root=self.result.root,
            blob_servers=(),
            training=TRAINING,
            codec=CODEC,
            outer=OUTER,
        )

    def shard_of(self, slot: int) -> str:
        """The shard of the worker in `slot` in the first round."""
        return self.shards[shard_index(self.state_id, slot, len(self.shards))]

    def train_job(self, folder: Path, slot: int = 0, state_in: str | None = None, steps_done: int = 0) -> TrainJob:
        """The first round's job of the worker in `slot`, writing to `folder`."""
        return TrainJob(
            model=MODEL,
            training=TRAINING,
            codec=CODEC,
            checkpoint=self.checkpoint,
            shard=self.shard_of(slot),
            seed=window_seed(self.state_id, slot),
            steps_done=steps_done,
            state_in=state_in,
            delta_out=str(folder / f"{slot}.delta"),
            state_out=str(folder / f"{slot}.state"),
        )


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> SmallRun:
    """Built by the engine's own job."""
    folder = tmp_path_factory.mktemp("text")
    write_text(folder)
    out = tmp_path_factory.mktemp("run")
    result = run_job(BuildRunJob(text=str(folder), model=MODEL, seed=7, shard_bytes=4096, validation_bytes=4096, out_dir=str(out)))
    assert isinstance(result, BuildRunResult)
    *shards, validation, _, checkpoint = [path for _, path in result.blobs]
    paths = {ref.sha256: path for ref, path in result.blobs}
    return SmallRun(result, paths, tuple(shards), validation, checkpoint, initial_state_id(result.root))
