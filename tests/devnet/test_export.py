"""The model that a devnet leaves: what its last result says of it, found in the coordinator's store."""

from __future__ import annotations

from pathlib import Path

import pytest

from nostrain.devnet.command import usage_problem
from nostrain.devnet.export import export_to, last_result, run_model
from nostrain.devnet.layout import Options
from nostrain.devnet.observer import Observer
from nostrain.errors import Unavailable
from nostrain.protocol.export import ModelState, Vocabulary
from tests.devnet.recorded import ROUNDS, Recording, recording


@pytest.fixture(scope="module")
def recorded() -> Recording:
    return recording()


@pytest.fixture
def observer(recorded: Recording) -> Observer:
    return recorded.watched()[0]


def store_of(recorded: Recording, folder: Path) -> Path:
    for digest, data in recorded.checkpoints.items():
        (folder / digest[:2]).mkdir(parents=True, exist_ok=True)
        (folder / digest[:2] / digest).write_bytes(data)
    return folder


def test_it_is_that_of_the_last_result(recorded: Recording, observer: Observer, tmp_path: Path) -> None:
    result, run = last_result(observer), observer.run
    assert result is not None
    assert run is not None
    found = run_model(observer, store_of(recorded, tmp_path))
    assert found is not None
    assert found.states == (ModelState(ROUNDS, result.state_id, result.root),)
    assert Path(found.checkpoint).read_bytes() == recorded.checkpoints[result.checkpoint.sha256]
    assert (found.run, found.model, found.vocabulary) == (run.id, run.manifest.model, Vocabulary(0))


async def test_before_a_result_there_is_none(recorded: Recording, tmp_path: Path) -> None:
    assert run_model(recorded.watched(5)[0], tmp_path) is None
    assert await export_to([tmp_path / "model"], recorded.watched(5)[0], tmp_path) == []
    assert not list(tmp_path.iterdir())


async def test_what_is_not_there_or_no_checkpoint_is_told(recorded: Recording, observer: Observer, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="the run's dataset cannot be read"):
        run_model(observer, tmp_path / "none")
    with pytest.raises(Unavailable, match=r"cannot be exported to .*model: checkpoint: its header promises"):
        await export_to([tmp_path / "model"], observer, store_of(recorded, tmp_path / "blobs"))
    assert not (tmp_path / "model").exists()


def test_where_it_cannot_be_written_is_told_before_the_run(tmp_path: Path) -> None:
    options, root = Options(), tmp_path / "root"
    assert usage_problem(options, root, None, tmp_path / "new") is None
    assert "nothing is overwritten" in (usage_problem(options, root, None, tmp_path) or "")
    assert "its folder is not there" in (usage_problem(options, root, None, tmp_path / "no" / "new") or "")
