"""Which model a node gives away: the state that it computed itself, with the tokenizer if a server has it; and that of a stopped daemon."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec
import pytest

from nostrain.core.rows import NodeState
from nostrain.daemon.held_model import held_model, main, run_model
from nostrain.daemon.storage import batch_of
from nostrain.errors import Unavailable
from nostrain.hashes import sha256_hex
from nostrain.journal.sqlite import SqliteJournal
from nostrain.protocol.digests import initial_state_id
from nostrain.protocol.export import ModelState, RunModel, Vocabulary
from nostrain.protocol.manifest import BlobRef
from nostrain.testing.blobs import FakeBlobs, FakeBlobServer
from nostrain.units import Digest
from tests.core.actors import DATASET, EXAMPLES, MESSAGES, Node, until
from tests.core.replicas import RESULT, advanced, booted, replica, stepped
from tests.docs.examples import WORKERS

TOKENIZER = b'{"added_tokens": []}'
BLOB = BlobRef(Digest(sha256_hex(TOKENIZER)), len(TOKENIZER))


def after_a_round() -> Node:
    return advanced(booted().hear(until("result")), stepped())


def with_tokenizer() -> NodeState:
    """A run whose dataset has one."""
    rows = booted().state.rows
    dataset = msgspec.structs.replace(DATASET, separator=7, tokenizer=BLOB)
    return NodeState({**rows, "replica": msgspec.structs.replace(replica(booted()), dataset=dataset)})


def test_it_is_the_state_that_was_computed_here() -> None:
    first, later = run_model(booted().state), run_model(after_a_round().state)
    root = EXAMPLES.manifest.root
    assert first.states == (ModelState(0, initial_state_id(root), root),)
    assert first.checkpoint == "/blobs/checkpoint"
    assert later.states == (ModelState(1, RESULT.state_id, RESULT.root),)
    assert later.checkpoint == "/work/state-00001.safetensors"
    assert (later.run, later.coordinator) == (MESSAGES["manifest"].id, MESSAGES["manifest"].author)
    assert (later.model, later.dataset) == (EXAMPLES.manifest.model, EXAMPLES.manifest.dataset.sha256)
    assert later.vocabulary == Vocabulary(0)


def test_a_state_that_is_not_the_runs_stays_here() -> None:
    with pytest.raises(Unavailable, match="follows no run"):
        run_model(NodeState())
    with pytest.raises(Unavailable, match="does not have the run's first checkpoint yet"):
        run_model(Node(WORKERS[0]).hear([MESSAGES["manifest"]]).state)
    other = advanced(booted().hear(until("result")), stepped(root=Digest("9" * 64)))
    with pytest.raises(Unavailable, match="not the run's since round 1"):
        run_model(other.state)


async def test_the_tokenizer_is_fetched_when_it_is_asked_for(tmp_path: Path, rng: random.Random) -> None:
    server, state = FakeBlobServer(EXAMPLES.manifest.blob_servers[0]), with_tokenizer()
    blobs = FakeBlobs(server, tmp_path, rng)
    assert (await held_model(state, blobs)).vocabulary == Vocabulary(7, BLOB), "no server has it"
    server.blobs[BLOB.sha256] = TOKENIZER
    found = (await held_model(state, blobs)).vocabulary
    assert found is not None
    assert found.path is not None
    assert Path(found.path).read_bytes() == TOKENIZER
    assert (await held_model(booted().state, blobs)).vocabulary == Vocabulary(0)


def test_a_stopped_daemon_need_not_be_started(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 1
    assert "no journal.sqlite in it" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    state = with_tokenizer()
    with SqliteJournal.open(tmp_path / "journal.sqlite", power_safe=False) as journal:
        journal.commit(batch_of([], NodeState(), state))
        assert main([str(tmp_path)]) == 1
        assert "in use by another nostraind" in (said := capsys.readouterr().err)
        assert "A running daemon is asked with --control" in said
    assert main([str(tmp_path)]) == 0
    found = msgspec.json.decode(capsys.readouterr().out, type=RunModel)
    assert found == run_model(state)
    tokenizer = tmp_path / "blobs" / BLOB.sha256[:2] / BLOB.sha256
    tokenizer.parent.mkdir(parents=True)
    tokenizer.write_bytes(TOKENIZER)
    assert main([str(tmp_path)]) == 0
    found = msgspec.json.decode(capsys.readouterr().out, type=RunModel)
    assert found.vocabulary == Vocabulary(7, BLOB, str(tokenizer))
    assert main([]) == 2
