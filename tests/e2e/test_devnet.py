"""The main job as a person runs it: real processes, a real relay, real learning; with a stranger on the relay who says nonsense."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
import trio

from nostrain.keys.signer import NostrSigner
from nostrain.keys.store import RootSecret
from nostrain.nostr.pool import open_pool
from nostrain.protocol.event import Draft, Event, Filter
from nostrain.protocol.manifest import CodecSpec, ModelSpec
from nostrain.protocol.messages import Announcement, Commitment
from nostrain.units import Digest, UnixTime
from nostrain.wire import kinds
from nostrain.wire.messages import draft, read_message_untrusted
from tests.devnet.living import processes_of
from tests.docs.page_decoder import decode
from tests.docs.page_tensors import page_tensors

pytest.importorskip("torch", reason="SKIPPED E2E: torch is not installed, so no engine can train (install the extra `torch`)")
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

CTL = (sys.executable, "-m", "nostrain.ctl")


async def stranger(url_file: Path, root: RootSecret) -> int:
    """Speak nonsense in the first round that opens; how many events were sent."""
    signer = NostrSigner(root)
    while not url_file.exists():
        await trio.sleep(0.1)
    async with open_pool([url_file.read_text().strip()], signer=signer) as pool:
        async with pool.subscribe([Filter(kinds=(kinds.ANNOUNCEMENT,))]) as events:
            announcement = await events.receive()
        sent = 0
        for nonsense in nonsense_about(announcement):
            await pool.publish(signer.sign(nonsense))
            sent += 1
    return sent


def nonsense_about(event: Event) -> list[Draft]:
    """Bodies by someone who takes no part; content that is none; a version from the future; numbers beyond all bounds."""
    message = read_message_untrusted(event)
    assert isinstance(message.body, Announcement)
    run, number = message.body.run, message.body.round
    now = UnixTime(int(time.time()))
    commitment = draft(Commitment(run, event.id, number, Digest("ab" * 32), message.body.state_id), now)
    rival = draft(msgspec.structs.replace(message.body, parent=message.body.run), now)
    return [
        commitment,
        rival,
        msgspec.structs.replace(commitment, content="{"),
        msgspec.structs.replace(commitment, content=commitment.content.replace('"v":1', '"v":2')),
        msgspec.structs.replace(commitment, content=commitment.content.replace(f'"round":{number}', '"round":' + "9" * 40)),
        msgspec.structs.replace(commitment, content="[" * 5000),
        msgspec.structs.replace(commitment, kind=kinds.RECEIPT),
    ]


async def test_a_small_run_learns_agrees_and_matches_the_reference(tmp_path: Path, seed: int) -> None:
    """Two rounds from one command: exit code 0, one digest for all in every round, equal to the in-process reference loop's."""
    folder, report_path = tmp_path / "devnet", tmp_path / "report.json"
    arguments = ["devnet", "--rounds", "2", "--workers", "2", "--validators", "3", "--seed", str(seed % 1000), "--reference"]
    command = [*CTL, *arguments, "--keep", str(folder), "--json", str(report_path)]
    sent = 0

    async def disturb() -> None:
        nonlocal sent
        sent = await stranger(folder / "relay-1.url", RootSecret(os.urandom(32)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(disturb)
        done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, stdin=subprocess.DEVNULL, check=False)
        assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    report = json.loads(report_path.read_text())
    assert set(report) >= {"schema", "initial_val_bpb", "final_val_bpb", "utilization", "rounds", "balances", "faults"}
    names = {"coordinator", "validator-1", "validator-2", "validator-3", "worker-1", "worker-2"}
    for entry in report["rounds"]:
        assert set(entry["digests"]) == names
        assert len(set(entry["digests"].values())) == 1
        assert set(entry["workers"]) == {"worker-1", "worker-2"}
    assert [entry["round"] for entry in report["rounds"]] == [1, 2]
    assert report["reference"]["match"] is True
    assert [entry["root"] for entry in report["reference"]["rounds"]] == [entry["digests"]["coordinator"] for entry in report["rounds"]]
    assert report["final_val_bpb"] < report["initial_val_bpb"] - 1
    assert sent == 7
    refused = [daemon["counters"].get("messages_refused", 0) for daemon in report["daemons"].values()]
    assert min(refused) >= 5, "every daemon counts the stranger's nonsense"
    assert report["model"] == str(folder / "model")
    assert root_of_model(folder / "model") == report["rounds"][-1]["digests"]["coordinator"]
    assert deltas_read_by_the_page(folder) == 4
    assert processes_of(folder) == []


def deltas_read_by_the_page(folder: Path) -> int:
    """Decode every delta of the run with the decoder that was written from docs/protocol.md alone; how many there are."""
    shapes = [shape for _, shape in page_tensors(msgspec.to_builtins(ModelSpec()))]
    codec, blobs = CodecSpec(), {path.read_bytes() for path in folder.rglob("*.delta")}
    for blob in blobs:
        assert len(decode(blob, shapes, codec.chunk, codec.topk, codec.quantizer_bits)) == 64 * 224 + 2 * 9
    return len(blobs)


def root_of_model(folder: Path) -> str:
    """Open the exported model as anyone would; the root of what is in it."""
    from transformers import LlamaForCausalLM

    from nostrain.learning.engines.pytorch.model import tensor_specs
    from nostrain.sparseloco.checkpoint import load_checkpoint_untrusted, merkle_root

    model, loading = LlamaForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(loading.values()), loading
    assert model.config.rope_parameters["rope_theta"] == 10_000
    tensors = tensor_specs(model)
    return merkle_root(tensors, load_checkpoint_untrusted(folder / "model.safetensors", tensors))


async def test_ctrl_c_leaves_no_process_behind(tmp_path: Path) -> None:
    """SIGINT in the middle: exit code 130, and nothing of the devnet is left."""
    folder = tmp_path / "devnet"
    command = [*CTL, "devnet", "--rounds", "2", "--workers", "1", "--validators", "1", "--keep", str(folder)]
    process = await trio.lowlevel.open_process(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    with trio.fail_after(60):
        while len(processes_of(folder)) < 3:
            await trio.sleep(0.1)
    process.send_signal(signal.SIGINT)
    with trio.fail_after(60):
        errors = b"".join([chunk async for chunk in process.stderr])
        assert await process.wait() == 130, errors.decode()
    assert processes_of(folder) == []
    assert b"Traceback" not in errors
