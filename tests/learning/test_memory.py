"""Training in too little memory: what is estimated, what happens when it runs out all the same. The model that runs out is a fake, its error is not."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from nostrain.learning.dispatch import run_job
from nostrain.learning.engines.base import EngineOptions, Flat, Model, Moments, Windows
from nostrain.learning.files import LastMade
from nostrain.learning.memory import MicroBatch
from nostrain.learning.resident import ResidentModel
from nostrain.learning.train import train
from nostrain.protocol.footprint import activation_bytes, as_memory, largest_micro_batch, needed_bytes, training_bytes
from nostrain.protocol.jobs import TrainResult
from nostrain.protocol.manifest import ModelSpec, TrainingSpec

from .conftest import MODEL, TRAINING, SmallRun

SMOL = ModelSpec(576, 1536, 30, 9, 3, 49_152, 2048, tie_word_embeddings=True)
"""The sides of SmolLM2-135M."""


@dataclass
class Cramped:
    """`base.Model` of a device with room for `room` windows at once. It spoils parameters and state before it says so, as a real one does."""

    model: Model
    room: int
    asked: list[int]

    def read(self) -> Flat:
        return self.model.read()

    def inner_steps(self, windows: Windows, training: TrainingSpec, steps_done: int, moments: Moments, micro_batch: int = 0) -> list[float]:
        self.asked.append(micro_batch)
        if micro_batch > self.room:
            moments.first[:] = moments.second[:] = np.nan
            self.replace(np.arange(5), np.full(5, np.nan, np.float32))
            raise MemoryError(f"no room for {micro_batch} windows")
        return self.model.inner_steps(windows, training, steps_done, moments, micro_batch)

    def window_losses(self, windows: Windows, batch: int) -> NDArray[np.float64]:
        return self.model.window_losses(windows, batch)

    def write(self, flat: Flat) -> None:
        self.model.write(flat)

    def replace(self, indices: NDArray[np.signedinteger[Any]], values: Flat) -> Flat:
        return self.model.replace(indices, values)


class Machine(ResidentModel):
    """A process whose device has room for `room` windows at once; `asked`: for how many it was asked."""

    def __init__(self, room: int) -> None:
        super().__init__(EngineOptions())
        self.room, self.asked = room, list[int]()

    @contextmanager
    def at(self, spec: ModelSpec, checkpoint: str, *, spoils: bool = False) -> Iterator[Model]:
        with super().at(spec, checkpoint, spoils=spoils) as model:
            yield Cramped(model, self.room, self.asked)


BATCH = msgspec.structs.replace(TRAINING, batch_size=8)


def test_out_of_memory_halves_the_micro_batch_and_the_round_goes_on(
    small_run: SmallRun, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    first, micro, machine = tmp_path / "first", MicroBatch(), Machine(room=2)
    first.mkdir()
    job = msgspec.structs.replace(small_run.train_job(first), training=BATCH)
    made = train(job, machine, micro, LastMade())
    assert machine.asked == [8, 4, 2]
    assert "out of memory with 8 windows at once; going on with 4" in capfd.readouterr().err
    again = run_job(
        msgspec.structs.replace(job, delta_out=str(tmp_path / "d"), state_out=str(tmp_path / "s")), EngineOptions(micro_batch=2)
    )
    assert isinstance(again, TrainResult)
    assert again.delta == made.delta, "as if it had been two from the start: nothing of the failed attempts is left"
    # The next round does not try again what was too much, and begins from the state on disk.
    later = msgspec.structs.replace(
        job, state_in=job.state_out, steps_done=4, delta_out=str(tmp_path / "d2"), state_out=str(tmp_path / "s2")
    )
    train(later, machine, micro, LastMade())
    assert machine.asked == [8, 4, 2, 2]


def test_a_model_that_ran_out_of_memory_is_gone_before_the_next_is_opened(small_run: SmallRun, tmp_path: Path) -> None:
    opened: list[weakref.ref[Model]] = []
    alive: list[int] = []

    class Counting(Machine):
        @contextmanager
        def at(self, spec: ModelSpec, checkpoint: str, *, spoils: bool = False) -> Iterator[Model]:
            alive.append(sum(model() is not None for model in opened))
            with super().at(spec, checkpoint, spoils=spoils) as model:
                opened.append(weakref.ref(model))
                yield model

    train(msgspec.structs.replace(small_run.train_job(tmp_path), training=BATCH), Counting(room=2), MicroBatch(), LastMade())
    assert alive == [0, 0, 0]


def test_when_one_window_is_too_much_the_job_fails_and_leaves_nothing(small_run: SmallRun, tmp_path: Path) -> None:
    machine = Machine(room=0)
    job = msgspec.structs.replace(small_run.train_job(tmp_path), training=BATCH)
    with pytest.raises(MemoryError, match="no room for 1 windows"):
        train(job, machine, MicroBatch(), LastMade())
    assert machine.asked == [8, 4, 2, 1]
    assert list(tmp_path.iterdir()) == []


def test_a_machine_that_knows_its_memory_does_not_try_what_cannot_fit() -> None:
    training = TrainingSpec(batch_size=16, sequence_length=2048)
    least, most = needed_bytes(SMOL, training)
    assert MicroBatch(memory=most).size(SMOL, training) == 16
    assert MicroBatch(memory=most - 1).size(SMOL, training) == 15
    assert MicroBatch(memory=least).size(SMOL, training) == 1
    assert MicroBatch(memory=1).size(SMOL, training) == 1, "it is tried: the estimate may be wrong"
    assert MicroBatch(chosen=3, memory=most).size(SMOL, training) == 3
    assert MicroBatch(memory=least, checkpointing=True).size(SMOL, training) > 1


@given(
    layers=st.integers(1, 64),
    hidden=st.integers(1, 64).map(lambda n: n * 64),
    batch=st.integers(1, 512),
    length=st.integers(16, 8192),
    memory=st.integers(0, 1 << 42),
)
def test_the_largest_micro_batch_fits_and_the_next_does_not(layers: int, hidden: int, batch: int, length: int, memory: int) -> None:
    model = ModelSpec(hidden, 3 * hidden, layers, hidden // 64, hidden // 64)
    training = TrainingSpec(batch_size=batch, sequence_length=length)
    size = largest_micro_batch(model, training, memory)
    assert 0 <= size <= batch
    assert size == 0 or training_bytes(model, size, length) <= memory
    assert size == batch or training_bytes(model, size + 1, length) > memory
    assert activation_bytes(model, length, checkpointing=True) <= activation_bytes(model, length)


def test_memory_is_said_in_words() -> None:
    assert [as_memory(size) for size in (0, 1, 5 << 30, (10 << 30) + 1)] == ["0 MiB", "1 MiB", "5,120 MiB", "11 GiB"]


def test_the_small_run_fits_anywhere() -> None:
    assert max(needed_bytes(MODEL, TRAINING)) < 640 << 20
