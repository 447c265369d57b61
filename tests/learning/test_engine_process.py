"""`python -m nostrain.learning` as a process: frames in, frames out, every fault a reply, an end when stdin closes."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from nostrain.errors import LocalProtocolError
from nostrain.learning.dispatch import run_job
from nostrain.learning.frames import FRAME_MAX, Reply, read_frame, write_frame
from nostrain.protocol.digests import next_state_id
from nostrain.protocol.jobs import AggregateJob, AggregateResult, InspectJob, InspectResult, Job, TrainResult

from .conftest import CODEC, MODEL, OUTER, SmallRun

ENGINE = [sys.executable, "-W", "error", "-m", "nostrain.learning"]


@pytest.fixture
def engine() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(ENGINE, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(30) == 0


def send(process: subprocess.Popen[bytes], number: int, job: object) -> None:
    assert process.stdin is not None
    write_frame(process.stdin, msgspec.msgpack.encode({"id": number, "job": job}))


def receive(process: subprocess.Popen[bytes]) -> Reply:
    assert process.stdout is not None
    body = read_frame(process.stdout)
    assert body is not None
    return msgspec.msgpack.decode(body, type=Reply)


def call(process: subprocess.Popen[bytes], number: int, job: Job) -> Reply:
    send(process, number, msgspec.to_builtins(job))
    return receive(process)


def test_jobs_and_their_faults_over_frames(engine: subprocess.Popen[bytes], small_run: SmallRun, tmp_path: Path) -> None:
    inspect = InspectJob(MODEL, small_run.checkpoint)
    assert call(engine, 1, inspect).result == InspectResult(small_run.result.root)
    missing = call(engine, 2, InspectJob(MODEL, str(tmp_path / "missing")))
    assert (missing.id, missing.result) == (2, None)
    assert missing.error is not None
    assert missing.error.family == "unavailable"
    assert "missing" in missing.error.message
    send(engine, 3, {"type": "no_such_job"})
    wrong = receive(engine)
    assert wrong.id == 3
    assert wrong.error is not None
    assert wrong.error.family == "local"
    train = call(engine, 4, small_run.train_job(tmp_path)).result
    assert isinstance(train, TrainResult)
    again = call(engine, 41, small_run.train_job(tmp_path)).result
    assert isinstance(again, TrainResult)
    assert again.delta == train.delta
    here = run_job(small_run.train_job(tmp_path))  # with another matrix product perhaps, so that last bits may differ
    assert isinstance(here, TrainResult)
    assert abs(here.loss_last_nanonats - train.loss_last_nanonats) < 10_000
    broken = msgspec.structs.replace(small_run.train_job(tmp_path), shard=small_run.checkpoint, dtype="uint32")
    refused = call(engine, 5, broken)
    assert refused.error is not None
    assert (refused.id, refused.error.family) == (5, "local")
    assert call(engine, 6, inspect).result == InspectResult(small_run.result.root)


def test_aggregation_needs_no_torch(small_run: SmallRun, tmp_path: Path) -> None:
    job = AggregateJob(
        model=MODEL,
        codec=CODEC,
        outer=OUTER,
        state_id=small_run.state_id,
        checkpoint=small_run.checkpoint,
        deltas=(),
        committed=1,
        checkpoint_out=str(tmp_path / "next"),
    )
    (tmp_path / "job").write_bytes(msgspec.msgpack.encode(job))
    program = (
        "import sys, msgspec\n"
        "from nostrain.learning.dispatch import run_job\n"
        "from nostrain.protocol.jobs import AggregateJob\n"
        "result = run_job(msgspec.msgpack.decode(open(sys.argv[1], 'rb').read(), type=AggregateJob))\n"
        "assert not {'torch', 'mlx', 'transformers', 'trio', 'asyncio', 'ssl'} & set(sys.modules), sorted(sys.modules)\n"
        "sys.stdout.buffer.write(msgspec.msgpack.encode(result))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, str(tmp_path / "job")], capture_output=True, check=True, timeout=30
    )
    result = msgspec.msgpack.decode(done.stdout, type=AggregateResult)
    assert result.root == small_run.result.root
    assert result.state_id == next_state_id(small_run.state_id, [], [], OUTER, 1)


@pytest.mark.parametrize("stream", [(FRAME_MAX + 1).to_bytes(4, "big"), b"\0\0", b"\0\0\0\x09short", b"\0\0\0\x03abc"])
def test_a_broken_frame_ends_the_process(stream: bytes) -> None:
    done = subprocess.run(ENGINE, input=stream, capture_output=True, check=False, timeout=30)
    assert done.returncode == 1
    assert done.stdout == b""
    assert done.stderr.startswith(b"engine: ")
    assert len(done.stderr.splitlines()) == 1


def test_frames_round_trip_and_are_bounded() -> None:
    stream = io.BytesIO()
    for body in (b"", b"one", b"two"):
        write_frame(stream, body)
    stream.seek(0)
    assert [read_frame(stream) for _ in range(4)] == [b"", b"one", b"two", None]
    with pytest.raises(LocalProtocolError, match="is the limit"):
        write_frame(stream, bytes(FRAME_MAX + 1))


def test_stray_output_does_not_reach_the_frames(small_run: SmallRun) -> None:
    program = (
        "import os, sys\n"
        "from nostrain.learning import __main__ as engine, build\n"
        "def noisy(job):\n"
        "    print('printed'); os.write(1, b'written')\n"
        "    return original(job)\n"
        "original, build.inspect = build.inspect, noisy\n"
        "engine.main()\n"
    )
    request = msgspec.msgpack.encode({"id": 9, "job": InspectJob(MODEL, small_run.checkpoint)})
    frame = io.BytesIO()
    write_frame(frame, request)
    done = subprocess.run([sys.executable, "-c", program], input=frame.getvalue(), capture_output=True, check=True, timeout=30)
    body = read_frame(io.BytesIO(done.stdout))
    assert body is not None
    assert msgspec.msgpack.decode(body, type=Reply).result == InspectResult(small_run.result.root)
    assert b"printed" in done.stderr
    assert b"written" in done.stderr
