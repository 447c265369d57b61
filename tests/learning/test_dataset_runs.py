"""A run on a dataset that was built before: subwords in two bytes, the model's vocabulary, what is refused, and a delta that a restart repeats."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from nostrain.errors import LocalProtocolError, RemoteProtocolError
from nostrain.learning.corpus.build import build_dataset
from nostrain.learning.data import read_shard
from nostrain.learning.dispatch import run_job
from nostrain.protocol.dataset import BuildDataset, DatasetManifest
from nostrain.protocol.jobs import (
    BuildRunJob,
    BuildRunResult,
    Candidate,
    EvaluateJob,
    EvaluateResult,
    TrainJob,
    TrainResult,
    ValidationJob,
    ValidationResult,
)
from nostrain.units import Pubkey

from .conftest import CODEC, MODEL, OUTER, SCORING, TRAINING

SEED = "ab" * 32


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 words, so two bytes a token."""
    folder = tmp_path_factory.mktemp("subwords")
    words = [f"w{number}" for number in range(299)]
    tokenizer = Tokenizer(WordLevel({word: at for at, word in enumerate([*words, "</s>"])}, unk_token="w0"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    rows = [" ".join(words[(at * at + step * 7) % 299] for step in range(40)) for at in range(400)]
    (folder / "rows.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    spec = BuildDataset(
        (str(folder / "rows.jsonl"),), str(folder / "built"), str(folder / "tokenizer.json"), shard_tokens=2000, validation_tokens=1000
    )
    build_dataset(spec, pytest.fail)
    return folder / "built"


def run_of(dataset: Path, out: Path, least: tuple[int, int] = (32, 320)) -> BuildRunResult:
    job = BuildRunJob(None, MODEL, 7, 4096, 4096, str(out), dataset=str(dataset), least_tokens=least)
    result = run_job(job)
    assert isinstance(result, BuildRunResult)
    return result


def train_job(dataset: Path, run: BuildRunResult, folder: Path, shard: str = "shard-0000.bin") -> TrainJob:
    checkpoint = run.blobs[-1][1]
    out = str(folder / "delta"), str(folder / "state")
    return TrainJob(run.model, TRAINING, CODEC, checkpoint, str(dataset / shard), SEED, 0, None, *out, dtype="uint16")


def test_a_run_takes_vocabulary_and_files_from_the_dataset(dataset: Path, tmp_path: Path) -> None:
    run = run_of(dataset, tmp_path)
    manifest = msgspec.json.decode((dataset / "dataset.json").read_bytes(), type=DatasetManifest)
    assert run.model.vocab_size == manifest.vocab_size == 300
    assert run.total_bytes == sum(shard.text_bytes for shard in manifest.shards)
    names = [Path(path).name for _, path in run.blobs]
    assert names == [path.name for path in sorted(dataset.glob("shard-*"))] + [
        "validation.bin",
        "tokenizer.json",
        "dataset.json",
        "model.safetensors",
    ]
    assert run.blobs[-2][0] == run.dataset


def test_every_job_reads_two_bytes_a_token(dataset: Path, tmp_path: Path) -> None:
    run = run_of(dataset, tmp_path)
    job = train_job(dataset, run, tmp_path)
    trained = run_job(job)
    assert isinstance(trained, TrainResult)
    assert trained.loss_first_nanonats == pytest.approx(np.log(300) * 1e9, rel=0.05)
    worker = Pubkey("11" * 32)
    scored = run_job(
        EvaluateJob(
            run.model,
            TRAINING,
            CODEC,
            OUTER,
            SCORING,
            job.checkpoint,
            (Candidate(worker, job.delta_out, job.shard, SEED),),
            1,
            (str(dataset / "shard-0001.bin"),),
            "cd" * 32,
            dtype="uint16",
        )
    )
    assert isinstance(scored, EvaluateResult)
    assert scored.scores[0].assigned_gain > 0
    held_out = ValidationJob(run.model, job.checkpoint, str(dataset / "validation.bin"), 320, 32, 4, "uint16")
    measured = run_job(held_out)
    assert isinstance(measured, ValidationResult)
    assert measured.loss_nanonats == pytest.approx(np.log(300) * 1e9, rel=0.05)


def test_a_worker_that_was_killed_trains_the_same_windows_again(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no position to lose: the job in the journal says it all, and what a killed engine left is written over."""
    run = run_of(dataset, tmp_path)
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    calm.mkdir()
    killed.mkdir()
    undisturbed = run_job(train_job(dataset, run, calm))
    with monkeypatch.context() as patch:

        def dies(*_: object) -> None:
            (killed / ".delta.1.tmp").write_bytes(b"half")
            raise KeyboardInterrupt

        patch.setattr("nostrain.sparseloco.checkpoint.os.fsync", dies)
        with pytest.raises(KeyboardInterrupt):
            run_job(train_job(dataset, run, killed))
    again = run_job(train_job(dataset, run, killed))
    assert isinstance(undisturbed, TrainResult)
    assert isinstance(again, TrainResult)
    assert again.delta == undisturbed.delta
    assert (killed / "state").read_bytes() == (calm / "state").read_bytes()


def test_tokens_that_the_model_does_not_know_are_refused(dataset: Path, tmp_path: Path) -> None:
    run = run_of(dataset, tmp_path)
    poisoned = tmp_path / "shard-0000.bin"
    np.full(2000, 300, "<u2").tofile(poisoned)
    with pytest.raises(RemoteProtocolError, match="has the token 300, the model knows 300"):
        run_job(train_job(tmp_path, run, tmp_path))
    (tmp_path / "odd").write_bytes(b"abc")
    with pytest.raises(RemoteProtocolError, match="not made of uint16 tokens"):
        read_shard(str(tmp_path / "odd"), "uint16")


def copied(dataset: Path, folder: Path) -> Path:
    folder.mkdir()
    for path in dataset.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def test_a_folder_that_is_no_dataset_is_refused(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(LocalProtocolError, match="not a dataset that `nostrain-ctl data build` made"):
        run_of(tmp_path, tmp_path / "out")
    with pytest.raises(LocalProtocolError, match="more than 9999 and 10 are needed"):
        run_of(dataset, tmp_path / "out", least=(9999, 10))
    broken = copied(dataset, tmp_path / "broken")
    (broken / "shard-0001.bin").write_bytes(b"x")
    with pytest.raises(LocalProtocolError, match=r"shard-0001\.bin has another size"):
        run_of(broken, tmp_path / "out")
    (broken / "shard-0001.bin").unlink()
    with pytest.raises(LocalProtocolError, match="not a dataset"):
        run_of(broken, tmp_path / "out")
