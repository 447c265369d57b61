"""`nostrain-ctl`: instant help, clear lines when nobody answers, and nothing of a stranger's that could command a terminal."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import click
import msgspec
import pytest
from click.testing import CliRunner, Result

from nostrain.ctl import client
from nostrain.ctl.main import main
from nostrain.ctl.render import printable
from nostrain.protocol.limits import MAX_ROUNDS, MAX_VALIDATORS, MAX_WORKERS
from nostrain.units import Digest, EventId, Pubkey
from nostrain.wire.control import MAX_LINE, Answer, CatchingUp, MemoryStatus, Request, RunStatus, Status

MAX_HELP_CPU_S = 0.150

STATUS = Status(
    name="home",
    pubkey=Pubkey("ab" * 32),
    roles=("worker",),
    version="0.1.0",
    relays_connected=("wss://relay.example",),
    run=RunStatus(EventId("cd" * 32), "a run", Pubkey("ef" * 32), 3, 8, "revealing", None),
    state_id=Digest("12" * 32),
    replica="ready",
    submission="uploading",
    duty=None,
    outstanding=("work/1#upload",),
    counters={"rounds_opened": 4},
    engine_starts=1,
    blobs_url=None,
)


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOSTRAIN_CONTROL", raising=False)


def cpu_of(*arguments: str) -> float:
    """CPU seconds of one `nostrain-ctl` process."""
    process = subprocess.Popen([sys.executable, "-m", "nostrain.ctl", *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_utime + usage.ru_stime


@pytest.mark.parametrize("arguments", [("--help",), ("devnet", "--help"), ("--version",)])
def test_help_is_instant(arguments: tuple[str, ...]) -> None:
    assert min(cpu_of(*arguments) for _ in range(3)) <= MAX_HELP_CPU_S


def test_help_loads_none_of_the_heavy_modules() -> None:
    code = "import sys, nostrain.ctl.main; print(*sys.modules)"
    loaded = set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())
    assert not loaded & {"trio", "numpy", "torch", "rich", "msgspec", "httpx", "nostr_sdk", "coincurve", "asyncio"}


def answered(path: Path, answer: bytes, command: str, *options: str) -> Result:
    """`command` against a daemon that says `answer`, whatever it is asked."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1 << 16)
                try:
                    connection.sendall(answer)
                except OSError:
                    return

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            return CliRunner().invoke(main, [command, "--control", str(path), *options])
        finally:
            thread.join()


def line(answer: Answer) -> bytes:
    return msgspec.json.encode(answer) + b"\n"


@pytest.mark.parametrize("command", ["status", "metrics", "stop"])
def test_without_a_daemon_one_line_says_so(tmp_path: Path, command: str) -> None:
    result = CliRunner().invoke(main, [command, "--control", str(tmp_path / "control.sock")])
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert "no daemon answers on" in result.stderr
    assert "No such file or directory" in result.stderr


def test_a_dead_socket_is_no_daemon(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "s"))
    result = CliRunner().invoke(main, ["status", "--control", str(tmp_path / "s")])
    assert result.exit_code == 1
    assert "Connection refused" in result.stderr


def test_a_daemon_that_hangs_is_not_waited_for_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "TIMEOUT_S", 0.1)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        result = CliRunner().invoke(main, ["status", "--control", str(tmp_path / "s")])
    assert result.exit_code == 1
    assert "timed out" in result.stderr


@pytest.mark.parametrize("answer", [b"", b"nonsense\n", b"[" * 5000, b"\xff\n", b'{"status":{}}\n', b"x" * (2 * MAX_LINE)])
def test_nonsense_from_the_other_side_is_one_line(tmp_path: Path, answer: bytes) -> None:
    result = answered(tmp_path / "s", answer, "status")
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert "control answer" in result.stderr


def test_an_error_is_shown(tmp_path: Path) -> None:
    result = answered(tmp_path / "s", line(Answer(error="no method 'x'")), "status")
    assert result.exit_code == 1
    assert result.stderr == "Error: no method 'x'\n"


def test_status_is_a_fact_a_line(tmp_path: Path) -> None:
    result = answered(tmp_path / "s", line(Answer(status=STATUS)), "status")
    assert result.exit_code == 0
    lines = [text.strip() for text in result.stdout.splitlines()]
    assert lines[0] == "daemon  home, worker, version 0.1.0"
    assert lines[1].startswith("key  npub1")
    assert "relays  wss://relay.example" in lines
    assert f"run  a run {'cd' * 8}, round 3 of 8 closed, revealing" in lines
    assert f"state  {'12' * 8} (ready)" in lines
    assert "submission  uploading" in lines
    assert "waiting for  upload" in lines
    assert "rounds_opened: 4" in lines
    assert max(map(len, result.stdout.splitlines())) < 100


def test_a_halted_run_says_why(tmp_path: Path) -> None:
    assert STATUS.run is not None
    halted = msgspec.structs.replace(STATUS, run=msgspec.structs.replace(STATUS.run, halted="two results for round 3"), outstanding=())
    result = answered(tmp_path / "s", line(Answer(status=halted)), "status")
    assert "halted  two results for round 3" in result.stdout
    assert "waiting for  the others" in result.stdout


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"run": None}, "run  none found yet"),
        ({"run": None, "roles": ("blobs",)}, "only serves blobs"),
        ({"relays_connected": ()}, "none connected"),
        ({"memory": MemoryStatus(16 << 30, 440 << 20, 453 << 20)}, "memory  needs 440 MiB with one window at a time, 453 MiB for whole"),
        ({"memory": MemoryStatus(16 << 30, 440 << 20, 453 << 20)}, "batches; has 16 GiB"),
        ({"memory": MemoryStatus(0, 440 << 20, 453 << 20)}, "has an unknown amount: set engine.memory_mb"),
        ({"run": None, "memory": MemoryStatus(4 << 30)}, "memory  has 4,096 MiB"),
        ({"catching_up": CatchingUp(3, 12)}, "catching up  3 of 12 rounds"),
        ({"catching_up": CatchingUp(0, 12, 11)}, "catching up  0 of 12 rounds; taking the checkpoint of round 11"),
        ({"run": None, "memory": MemoryStatus(4 << 30), "counters": {"runs_too_large": 2}}, "2 runs need more and were not joined"),
    ],
)
def test_what_is_not_there_is_said(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    result = answered(tmp_path / "s", line(Answer(status=msgspec.structs.replace(STATUS, **changes))), "status")
    assert said in result.stdout


def test_a_run_cannot_command_the_terminal_by_its_name(tmp_path: Path) -> None:
    assert STATUS.run is not None
    hostile = msgspec.structs.replace(STATUS, run=msgspec.structs.replace(STATUS.run, name="x\x1b[2J\x07\ndaemon  forged"))
    result = answered(tmp_path / "s", line(Answer(status=hostile)), "status")
    assert "\x1b" not in result.stdout
    assert "\n      daemon  forged" not in result.stdout
    assert "x?[2J??daemon  forged" in result.stdout
    assert printable("grün ✓") == "grün ✓"


def test_metrics_and_stop_pass_through(tmp_path: Path) -> None:
    assert answered(tmp_path / "s", line(Answer(metrics="a 1\nb 2\n")), "metrics").stdout == "a 1\nb 2\n"
    assert answered(tmp_path / "t", line(Answer(stopping=True)), "stop").stdout == "stopping\n"
    assert answered(tmp_path / "u", line(Answer(stopping=True)), "stop", "--json").stdout == '{"stopping":true}\n'


def test_the_socket_can_be_named_in_the_environment(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["status"], env={"NOSTRAIN_CONTROL": str(tmp_path / "elsewhere")})
    assert str(tmp_path / "elsewhere") in result.stderr


def test_the_request_is_one_line() -> None:
    assert msgspec.json.encode(Request("status")) == b'{"method":"status","start":0,"workers":0,"rounds":0,"v":1}'


@pytest.mark.parametrize("option", ["--rounds 0", "--workers 17", "--validators 9", "--seed -1", "--model huge", "--text none --rounds 1"])
def test_options_of_devnet_that_cannot_be(option: str) -> None:
    assert CliRunner().invoke(main, ["devnet", *option.split()]).exit_code == 2


def test_what_devnet_offers_a_run_may_have() -> None:
    ranges = {option.name: option.type for option in main.commands["devnet"].params}  # type: ignore[attr-defined]
    limits = {"rounds": MAX_ROUNDS, "workers": MAX_WORKERS, "validators": MAX_VALIDATORS}
    for name, limit in limits.items():
        offered = ranges[name]
        assert isinstance(offered, click.IntRange)
        assert offered.max is not None
        assert offered.max <= limit
