"""The model's state that a node holds, for `nostrain-ctl model export`: of a running daemon, or of the journal of one that was stopped.

`python -m nostrain.daemon.held_model FOLDER` prints what the data folder of a stopped daemon holds, a `RunModel` as JSON. Exit status 0, or 1 with
one line on standard error.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import msgspec
import trio

from nostrain.blobs.store import place_of
from nostrain.core.rows import NodeState, Replica, Run
from nostrain.core.run import located
from nostrain.core.tables import ReplicaState
from nostrain.daemon.storage import load_state
from nostrain.errors import ConfigError, NostrainError, RemoteProtocolError, Unavailable
from nostrain.journal.sqlite import SqliteJournal
from nostrain.ports.blobs import Blobs
from nostrain.protocol.export import ModelState, RunModel, Vocabulary

PATIENCE_S: Final = 20.0
"""How long servers are asked for the tokenizer before the answer is given without it."""


def run_model(state: NodeState) -> RunModel:
    """The state that our replica has computed itself, or joined at on the word of t validators. Raises Unavailable when there is none, or it is not the run's."""
    run, replica = state.rows.get("run"), state.rows.get("replica")
    if not isinstance(run, Run) or not isinstance(replica, Replica):
        raise Unavailable("this node follows no run, so that it has no model")
    if replica.state is ReplicaState.DIVERGED:
        raise Unavailable(f"this node's copy of the model is not the run's since round {replica.round}: take it from another node")
    if replica.checkpoint is None or replica.state_id is None or replica.root is None:
        raise Unavailable("this node does not have the run's first checkpoint yet")
    dataset = replica.dataset
    states = (ModelState(replica.round, replica.state_id, replica.root),)
    vocabulary = None if dataset is None else Vocabulary(dataset.separator, dataset.tokenizer)
    return RunModel.of(run.id, run.coordinator, run.manifest, states, str(Path(replica.checkpoint).absolute()), vocabulary)


async def held_model(state: NodeState, blobs: Blobs) -> RunModel:
    """`run_model`, and where its tokenizer is: no role needs that, so that it is only fetched now, and left out if that takes too long."""
    model = run_model(state)
    run, vocabulary = state.rows.get("run"), model.vocabulary
    if not isinstance(run, Run) or vocabulary is None or vocabulary.tokenizer is None:
        return model
    blob = located(run, vocabulary.tokenizer)
    try:
        with trio.fail_after(PATIENCE_S):
            path = await blobs.get(blob.sha256, blob.urls, blob.size, run.coordinator)
    except (Unavailable, RemoteProtocolError, OSError, trio.TooSlowError):
        return model
    return with_path(model, vocabulary, path)


def with_path(model: RunModel, vocabulary: Vocabulary, path: Path) -> RunModel:
    """The same, its tokenizer in the file `path`."""
    return msgspec.structs.replace(model, vocabulary=msgspec.structs.replace(vocabulary, path=str(path.absolute())))


def of_folder(folder: Path) -> RunModel:
    """What the data folder of a stopped daemon holds. Raises Unavailable, also when there is no journal, or its daemon runs."""
    path = folder / "journal.sqlite"
    if not path.is_file():
        raise Unavailable(f"{folder}: no journal.sqlite in it; name the data folder of a daemon that follows a run")
    try:
        with SqliteJournal.open(path) as journal:
            model = run_model(load_state(journal.load()))
    except ConfigError as error:
        raise Unavailable(f"{folder}: {error.reason}. A running daemon is asked with --control") from error
    vocabulary = model.vocabulary
    if vocabulary is None or vocabulary.tokenizer is None:
        return model
    tokenizer = place_of(folder / "blobs", vocabulary.tokenizer.sha256)
    return with_path(model, vocabulary, tokenizer) if tokenizer.is_file() else model


def main(arguments: list[str]) -> int:
    """As the module says; 2 if called wrongly."""
    if len(arguments) != 1:
        print("usage: python -m nostrain.daemon.held_model FOLDER", file=sys.stderr)
        return 2
    try:
        print(msgspec.json.encode(of_folder(Path(arguments[0]))).decode())
    except NostrainError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
