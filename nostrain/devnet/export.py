"""The trained model out of a devnet: what its last result says, and where the coordinator's store has it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import trio

from nostrain.blobs.store import place_of
from nostrain.devnet.observer import Observer
from nostrain.errors import Unavailable
from nostrain.protocol.dataset import DatasetManifest
from nostrain.protocol.export import ExportModel, ModelState, RunModel, Vocabulary
from nostrain.protocol.messages import Result


async def export_to(folders: Sequence[Path], observer: Observer, blobs: Path) -> list[Path]:
    """Make each of `folders` from the last checkpoint; which were made: none when no round was closed. Raises Unavailable, naming the folder.

    Tensors are read in a process of its own. Cancelled, it ends, and leaves no folder that is not whole under its name.
    """
    source = run_model(observer, blobs)
    if source is None:
        return []
    for folder in folders:
        job = msgspec.json.encode(ExportModel(source, str(folder.absolute()))).decode()
        command = [sys.executable, "-P", "-m", "nostrain.learning.export", job]
        done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
        if done.returncode != 0:
            raise Unavailable(f"the last checkpoint cannot be exported to {folder}: {done.stderr.decode(errors='replace').strip()}")
    return list(folders)


def run_model(observer: Observer, blobs: Path) -> RunModel | None:
    """The checkpoint of the last result, in the blob store `blobs`; None when no round was closed. Raises Unavailable when that has no dataset."""
    result, run = last_result(observer), observer.run
    if result is None or run is None:
        return None
    manifest = run.manifest
    try:
        dataset = msgspec.json.decode(place_of(blobs, manifest.dataset.sha256).read_bytes(), type=DatasetManifest)
    except (OSError, msgspec.DecodeError) as error:
        raise Unavailable(f"the run's dataset cannot be read: {error}") from error
    tokenizer = None if dataset.tokenizer is None else str(place_of(blobs, dataset.tokenizer.sha256))
    states = (ModelState(result.round, result.state_id, result.root),)
    vocabulary = Vocabulary(dataset.separator, dataset.tokenizer, tokenizer)
    return RunModel.of(run.id, run.coordinator, manifest, states, str(place_of(blobs, result.checkpoint.sha256)), vocabulary)


def last_result(observer: Observer) -> Result | None:
    """Of the last round that has one."""
    results = [watched.round.result[1] for _, watched in sorted(observer.rounds.items()) if watched.round.result is not None]
    return results[-1] if results else None
