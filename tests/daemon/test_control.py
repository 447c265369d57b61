"""The control socket: who may speak, what a hostile or silent client costs, and what is in its place already."""

from __future__ import annotations

import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import trio

from nostrain.daemon import control as control_module
from nostrain.daemon.control import MAX_PATH, Control, bind, remove
from nostrain.daemon.status import metrics
from nostrain.errors import ConfigError
from nostrain.wire.control import MAX_LINE, Answer, Request, Status, parse_answer_untrusted
from tests.daemon.examples import example

STATUS = msgspec.structs.replace(example(Status), counters={"rounds_opened": 3, 'a"b\\c': 1}, outstanding=("a#b", "c#d"))


@asynccontextmanager
async def served(path: Path, answer: Control | None = None) -> AsyncIterator[Control]:
    control = answer or Control(lambda: STATUS)
    async with trio.open_nursery() as nursery:
        await nursery.start(control.serve, path)
        yield control
        nursery.cancel_scope.cancel()


async def say(path: Path, data: bytes) -> Answer:
    with trio.fail_after(10):
        async with await trio.open_unix_socket(str(path)) as stream:
            await stream.send_all(data)
            answer = b""
            async for chunk in stream:
                answer += chunk
    assert answer.endswith(b"\n")
    return parse_answer_untrusted(answer)


def request(method: str) -> bytes:
    return msgspec.json.encode(Request(method)) + b"\n"


async def test_status_metrics_and_stop(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with served(path) as control:
        assert (await say(path, request("status"))).status == STATUS
        assert (await say(path, request("metrics"))).metrics == metrics(STATUS)
        assert not control.stop.is_set()
        assert (await say(path, request("stop"))).stopping is True
        assert control.stop.is_set()
    assert not path.exists()


async def test_only_the_owner_may_connect(tmp_path: Path) -> None:
    async with served(tmp_path / "s"):
        mode = (tmp_path / "s").stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


@pytest.mark.parametrize(
    "data", [b"\n", b"{\n", b"\xff\xfe\n", b"[" * 5000 + b"\n", b'{"method":1}\n', request("no-such"), request("x" * 10_000)]
)
async def test_nonsense_is_answered_with_an_error(tmp_path: Path, data: bytes) -> None:
    async with served(tmp_path / "s"):
        answer = await say(tmp_path / "s", data)
        assert answer.error is not None
        assert len(answer.error) < 300
        assert (await say(tmp_path / "s", request("status"))).status == STATUS


async def test_a_line_without_end_is_cut(tmp_path: Path) -> None:
    async with served(tmp_path / "s"):
        with trio.fail_after(10):
            stream = await trio.open_unix_socket(str(tmp_path / "s"))
            with pytest.raises(trio.BrokenResourceError):
                await stream.send_all(b"x" * (64 * MAX_LINE))
            await stream.aclose()
        assert (await say(tmp_path / "s", request("status"))).status == STATUS


async def test_a_client_that_says_nothing_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_module, "REQUEST_TIMEOUT_S", 0.05)
    async with served(tmp_path / "s"), await trio.open_unix_socket(str(tmp_path / "s")) as stream:
        with trio.fail_after(10):
            assert await stream.receive_some() == b""


async def test_silent_clients_do_not_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_module, "MAX_SESSIONS", 3)
    path = tmp_path / "s"
    async with served(path), trio.open_nursery() as nursery:
        streams = [await trio.open_unix_socket(str(path)) for _ in range(4)]
        with trio.fail_after(10):
            assert await streams[3].receive_some() == b"", "one too many"
        await streams[0].aclose()
        with trio.fail_after(10):
            while True:
                try:
                    answer = await say(path, request("status"))
                    break
                except (AssertionError, trio.BrokenResourceError):
                    await trio.lowlevel.checkpoint()
        assert answer.status == STATUS
        for stream in streams:
            await trio.aclose_forcefully(stream)
        nursery.cancel_scope.cancel()


async def test_looking_at_a_daemon_never_ends_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> Status:
        raise KeyError("a row")

    async with served(tmp_path / "s", Control(broken)):
        answer = await say(tmp_path / "s", request("status"))
        assert answer.error == "KeyError: 'a row'"
        assert (await say(tmp_path / "s", request("stop"))).stopping is True
    assert "the request 'status' failed" in caplog.text


def test_a_path_that_is_too_long_is_told() -> None:
    with pytest.raises(ConfigError, match=f"longer than the {MAX_PATH} bytes"):
        bind(Path("/tmp") / ("x" * MAX_PATH))


async def test_a_dead_socket_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    live = bind(path)
    with pytest.raises(ConfigError, match="another daemon listens there"):
        bind(path)
    live.close()
    bind(path).close()


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_text("precious")
    with pytest.raises(ConfigError, match="no socket is there"):
        bind(path)
    assert path.read_text() == "precious"


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot listen there: No such file or directory"):
        bind(tmp_path / "none" / "s")


async def test_another_daemons_socket_is_not_removed_with_ours(tmp_path: Path) -> None:
    path = tmp_path / "s"
    ours = bind(path)
    made = path.stat().st_ino
    path.rename(tmp_path / "moved")
    theirs = bind(path)
    remove(path, made)
    assert path.is_socket()
    remove(path, path.stat().st_ino)
    assert not path.exists()
    ours.close()
    theirs.close()


def test_metrics_are_prometheus_text() -> None:
    lines = metrics(STATUS).splitlines()
    assert 'nostrain_events_total{what="rounds_opened"} 3' in lines
    assert 'nostrain_events_total{what="a\\"b\\\\c"} 1' in lines
    assert "nostrain_effects_outstanding 2" in lines
    assert "nostrain_run_halted 1" in lines
    named = {line.split()[2] for line in lines if line.startswith("# TYPE")}
    assert named == {line.split("{")[0].split()[0] for line in lines if not line.startswith("#")}
