"""`nostrain-ctl model export`: from a daemon, a file of events and a checkpoint; what is not the run's is refused in a line."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner, Result

from nostrain.ctl.main import main
from nostrain.learning.initial import initial_parameters
from nostrain.protocol.digests import initial_state_id
from nostrain.protocol.event import Event
from nostrain.protocol.export import ModelState, RunModel
from nostrain.protocol.manifest import BlobRef, ModelSpec
from nostrain.protocol.messages import Result as RoundResult
from nostrain.protocol.tensors import model_tensors
from nostrain.sparseloco.checkpoint import merkle_root, write_checkpoint
from nostrain.units import Digest, Pubkey
from nostrain.wire.control import Answer
from nostrain.wire.event import encode_event
from tests.core.actors import EXAMPLES, MESSAGES
from tests.docs.examples import COORDINATOR, START, WORKERS, Party

MODEL = ModelSpec(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, vocab_size=300)
TENSORS = model_tensors(MODEL)
FLAT = initial_parameters(MODEL, 1)
LATER = FLAT + np.float32(1)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["model", "export", *map(str, arguments)])


def said(party: Party, body: object, after: int) -> Event:
    return party.says(body, START + after)  # type: ignore[arg-type]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A built dataset with a tokenizer of 300 tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {f"w{at}": at for at in range(299)} | {"</s>": 299}
    made = Tokenizer(models.WordLevel(words, unk_token="w0"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    made.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"text": f"w{at} w2 w3 w4"}) + "\n" for at in range(200)))
    sizes = ["--shard-tokens", "100", "--validation-tokens", "100"]
    build = [
        "data",
        "build",
        str(tmp_path / "rows.jsonl"),
        "--tokenizer",
        str(tmp_path / "tokenizer.json"),
        "--out",
        str(tmp_path / "data"),
    ]
    done = CliRunner().invoke(main, [*build, *sizes, "--json"])
    assert done.exit_code == 0, done.output
    return tmp_path / "data"


def signed(dataset: Digest) -> list[Event]:
    """The run's manifest and the result of its first round, which leads to LATER; another's result, and one of another run."""
    roots = [merkle_root(TENSORS, flat) for flat in (FLAT, LATER)]
    manifest = said(COORDINATOR, msgspec.structs.replace(EXAMPLES.manifest, model=MODEL, dataset=BlobRef(dataset, 9), root=roots[0]), 0)
    result = MESSAGES["result"].body
    assert isinstance(result, RoundResult)
    ours = msgspec.structs.replace(result, run=manifest.id, root=roots[1])
    false = merkle_root(TENSORS, LATER + np.float32(1))
    theirs = msgspec.structs.replace(ours, round=2, root=false)
    elsewhere = msgspec.structs.replace(result, round=3, root=false)
    return [manifest, said(COORDINATOR, ours, 9), said(WORKERS[0], theirs, 10), said(COORDINATOR, elsewhere, 11)]


def in_a_file(path: Path, events: list[Event]) -> Path:
    path.write_bytes(b"\n".join(map(encode_event, events)) + b"\n")
    return path


def test_a_checkpoint_and_signed_events_are_enough(dataset: Path, tmp_path: Path) -> None:
    """Whoever has the blob of a result needs no node: its root is looked for among the states that the coordinator has signed."""
    digest = json.loads(CliRunner().invoke(main, ["data", "verify", str(dataset), "--json"]).output)["dataset"]
    events = signed(digest)
    listed = in_a_file(tmp_path / "events", events)
    for number, flat in enumerate((FLAT, LATER)):
        write_checkpoint(tmp_path / "checkpoint", TENSORS, flat)
        out = tmp_path / f"out-{number}"
        done = run(out, "--checkpoint", tmp_path / "checkpoint", "--events", listed, "--dataset", dataset, "--json")
        assert done.exit_code == 0, done.output
        made = json.loads(done.stdout)
        assert made["state"]["round"] == number
        assert made["run"] == events[0].id
        assert made["tokenizer"] is True
        assert {path.name: path.stat().st_size for path in out.iterdir()} == made["files"]
    bare = run(tmp_path / "bare", "--checkpoint", tmp_path / "checkpoint", "--events", listed)
    assert bare.exit_code == 0
    assert f"round 1 of {EXAMPLES.manifest.rounds} of run {events[0].id}" in bare.stdout
    assert "without a tokenizer, which is not at hand: --dataset" in bare.stderr


def test_what_is_not_the_runs_is_refused(dataset: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_checkpoint(tmp_path / "checkpoint", TENSORS, LATER + np.float32(1))
    file = ("--checkpoint", tmp_path / "checkpoint")
    events = signed(Digest("ab" * 32))
    done = run(tmp_path / "out", *file, "--events", in_a_file(tmp_path / "e", events))
    assert done.exit_code == 1
    assert "none of the run's 2 states has it" in capfd.readouterr().err
    done = run(tmp_path / "out", *file, "--events", tmp_path / "e", "--dataset", dataset)
    assert "the run's is abab" in done.output
    both = [*events, *(event for event in EXAMPLES.events.values())]
    assert "2 run manifests found: name one with --run" in run(tmp_path / "out", *file, "--events", in_a_file(tmp_path / "e", both)).output
    named = run(tmp_path / "out", *file, "--events", tmp_path / "e", "--run", MESSAGES["manifest"].id)
    assert named.exit_code == 1
    assert "this run's" in capfd.readouterr().err
    nothing = run(tmp_path / "out", *file, "--events", in_a_file(tmp_path / "e", events[1:]))
    assert "0 run manifests found: a checkpoint is only exported with the manifest of its run" in nothing.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("--control", "s", "--data-dir", "."),
        ("--checkpoint", __file__),
        ("--events", __file__),
        ("--run", "ab" * 32),
        ("--checkpoint", __file__, "--relay", "ws://127.0.0.1:1"),
        ("--checkpoint", __file__, "--run", "ab" * 32),
    ],
)
def test_sources_are_not_mixed(arguments: tuple[str, ...], tmp_path: Path) -> None:
    done = run(tmp_path / "out", *arguments)
    assert done.exit_code == 2
    assert "--checkpoint" in done.output


def answering(path: Path, answer: Answer) -> threading.Thread:
    """A daemon that answers one request."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen(1)

    def serve() -> None:
        with listening, listening.accept()[0] as stream:
            assert msgspec.json.decode(stream.recv(65536).strip())["method"] == "model"
            stream.sendall(msgspec.json.encode(answer) + b"\n")

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


def test_a_daemon_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_checkpoint("checkpoint", TENSORS, FLAT)
    root = merkle_root(TENSORS, FLAT)
    state = ModelState(0, initial_state_id(root), root)
    held = RunModel(
        MESSAGES["manifest"].id, "a run", Pubkey("ab" * 32), 8, MODEL, Digest("cd" * 32), (state,), str(tmp_path / "checkpoint")
    )
    thread = answering(Path("control.sock"), Answer(model=held))
    done = run("out", "--dtype", "bfloat16")
    thread.join()
    assert done.exit_code == 0, done.output
    assert f"round 0 of 8 of run {held.run}, state {state.state_id}, Merkle root {root}" in done.stdout
    assert json.loads(Path("out/config.json").read_text())["dtype"] == "bfloat16"
    Path("control.sock").unlink()
    thread = answering(Path("control.sock"), Answer(error="this node follows no run"))
    done = run("again")
    thread.join()
    assert done.exit_code == 1
    assert "Error: this node follows no run" in done.output


def test_a_folder_that_is_no_nodes_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "out", "--data-dir", tmp_path).exit_code == 1
    assert "no journal.sqlite in it" in capfd.readouterr().err
