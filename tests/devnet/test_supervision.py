"""A devnet of real processes in which something dies or hangs: it ends by itself, says who, and leaves nothing behind. No engine has to train."""

from __future__ import annotations

import shlex
import signal
import sys
from pathlib import Path

import pytest
import trio

from nostrain.devnet import command, lightning
from nostrain.devnet.command import EXIT_FAILED, EXIT_USAGE, Outputs, run, supervise
from nostrain.devnet.layout import Options
from nostrain.devnet.processes import Processes
from nostrain.devnet.supervisor import Devnet, last_line, open_devnet
from nostrain.errors import Unavailable
from tests.devnet.living import processes_of

SMALL = Options(rounds=1, workers=1, validators=1)


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nostrain.devnet.supervisor.STAGGER_S", 0.1)


async def test_a_daemon_that_was_killed_ends_the_devnet_with_its_name_and_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Killed from outside and not started again: the command ends with a line and exit code 1, and everything is gone."""

    async def murder(devnet: Devnet) -> None:
        log = devnet.log_of("worker-1")
        while "runs as worker" not in log.read_text():
            await trio.sleep(0.02)
        devnet.processes.children["worker-1"].process.send_signal(signal.SIGKILL)

    real = Devnet.wait_for

    async def wait_for(devnet: Devnet, condition: object) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(murder, devnet)
            try:
                await real(devnet, condition)  # type: ignore[arg-type]
            except Unavailable as error:
                raised.append(error)
            nursery.cancel_scope.cancel()
        raise raised[0]

    raised: list[Unavailable] = []
    monkeypatch.setattr(Devnet, "wait_for", wait_for)
    with trio.fail_after(60):
        code = await supervise(SMALL, Outputs(tmp_path, keep=True))
    output = capsys.readouterr().out
    assert code == EXIT_FAILED
    failed = [line for line in output.splitlines() if line.startswith("FAILED: ")]
    assert failed[0].startswith("FAILED: worker-1 was killed by SIGKILL; its log ends: ")
    assert f"logs, configurations and journals: {tmp_path}/<name>/" in output
    with trio.fail_after(10):
        while processes_of(tmp_path):
            await trio.sleep(0.05)


async def test_a_daemon_that_hangs_ends_the_devnet_with_its_name(tmp_path: Path) -> None:
    """Stopped before it can publish a run, the coordinator neither dies nor speaks."""
    options = Options(rounds=1, workers=1, validators=1, stall_s=1.5)
    with trio.fail_after(60):
        with pytest.RaisesGroup(pytest.RaisesExc(Unavailable, match="waiting for coordinator; the log of coordinator ends: ")) as caught:
            async with open_devnet(tmp_path, options, lambda _line: None) as devnet:
                while "runs as coordinator" not in devnet.log_of("coordinator").read_text():
                    await trio.sleep(0.02)
                devnet.processes.children["coordinator"].process.send_signal(signal.SIGSTOP)
                try:
                    await devnet.wait_for(lambda: devnet.observer.over)
                finally:
                    devnet.processes.children["coordinator"].process.send_signal(signal.SIGCONT)
        assert "nothing was said on any relay for 2 s: no run was published" in str(caught.value.exceptions[0])
        while processes_of(tmp_path):
            await trio.sleep(0.05)


async def test_a_relay_that_died_is_named(tmp_path: Path) -> None:
    with trio.fail_after(60):
        with pytest.RaisesGroup(pytest.RaisesExc(Unavailable, match="relay-1 was killed by SIGKILL")):
            async with open_devnet(tmp_path, Options(workers=1, validators=1), lambda _line: None) as devnet:
                devnet.processes.children["relay-1"].process.send_signal(signal.SIGKILL)
                await devnet.wait_for(lambda: False)


def failing(*_: object) -> int:
    raise AssertionError("the devnet was started")


def test_what_would_fail_after_minutes_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "supervise", failing)
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    cases: list[tuple[Options, Path | None, Path | None, str]] = [
        (Options(text=tmp_path / "none"), None, None, "not a folder"),
        (Options(), tmp_path / "full", None, "the folder is not empty"),
        (Options(), tmp_path / "file" / "x", None, "Not a directory"),
        (Options(), tmp_path / ("x" * 120), None, "too long for the control sockets"),
        (Options(), None, tmp_path / "none" / "r.json", "--json"),
        (Options(lightning="regtest"), None, None, "bitcoind, bitcoin-cli, lightningd not found on PATH"),
        (Options(lightning="regtest", paid=False), None, None, "leave out --unpaid"),
    ]
    monkeypatch.setenv("PATH", str(tmp_path))
    for options, keep, json_path, said in cases:
        assert run(options, keep=keep, json_path=json_path, with_reference=False) == EXIT_USAGE
        errors = capsys.readouterr().err
        assert said in errors
        assert len(errors.splitlines()) == 1


@pytest.mark.parametrize(("code", "kept"), [(0, False), (130, False), (EXIT_FAILED, True)])
def test_without_keep_only_a_failure_is_kept(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, code: int, kept: bool
) -> None:
    roots: list[Path] = []

    async def pretend(_options: Options, outputs: Outputs) -> int:
        await trio.lowlevel.checkpoint()
        roots.append(outputs.root)
        (outputs.root / "worker-1").mkdir()
        return code

    monkeypatch.setattr(command, "supervise", pretend)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path_factory.mktemp("t")))
    assert run(Options(), keep=None, json_path=None, with_reference=False) == code
    assert roots[0].exists() is kept


async def test_settings_in_our_environment_are_not_the_daemons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOSTRAIN_CONTROL", "/somewhere/else")
    processes = Processes()
    code = "import os; print([name for name in os.environ if name.startswith('NOSTRAIN_')])"
    child = await processes.start("one", (sys.executable, "-c", code), tmp_path / "log")
    with trio.fail_after(20):
        await child.process.wait()
    assert (tmp_path / "log").read_text() == "[]\n"
    assert child.ending == "ended with code 0"
    assert [one.name for one in processes.dead()] == ["one"]
    await processes.stop_all()


async def test_everything_stops_even_what_will_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nostrain.devnet.processes.STOP_GRACE_S", 0.3)
    processes = Processes()
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)"
    child = await processes.start("stubborn", (sys.executable, "-c", stubborn), tmp_path / "log")
    with trio.fail_after(20):
        while (tmp_path / "log").read_text() != "ready\n":
            await trio.sleep(0.02)
        with trio.CancelScope() as scope:
            scope.cancel()
            await processes.stop_all()
    assert child.ending == "was killed by SIGKILL"
    assert processes.children == {}


@pytest.mark.parametrize(("stubborn", "ending"), [(False, 3), (True, -signal.SIGKILL)])
async def test_one_child_is_stopped_in_its_own_way_and_says_how_that_went(tmp_path: Path, stubborn: bool, ending: int) -> None:
    processes = Processes()
    act = "signal.SIG_IGN" if stubborn else "lambda *_: sys.exit(3)"
    code = f"import signal, sys, time; signal.signal(signal.SIGTERM, {act}); print('ready', flush=True); time.sleep(600)"
    await processes.start("one", (sys.executable, "-c", code), tmp_path / "log")
    with trio.fail_after(20):
        while (tmp_path / "log").read_text() != "ready\n":
            await trio.sleep(0.02)
        assert await processes.stop("one", 0.3 if stubborn else 20) == ending
    assert processes.children == {}


async def test_a_network_that_ends_badly_is_complained_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `nostrain.devnet.regtest` does when a lightningd logged that something is broken: exit code 1, and the lines."""
    real = lightning.command

    def bad(root: Path, options: Options) -> tuple[str, ...]:
        served = " ".join(map(shlex.quote, real(root, options)))
        return ("sh", "-c", f"trap 'kill $!; wait $!; echo worker-1: **BROKEN**; exit 1' TERM; {served} & wait $!")

    monkeypatch.setattr(lightning, "command", bad)
    with trio.fail_after(60):
        async with lightning.open_lightning(tmp_path, SMALL) as network:
            assert network.complaints == []
            assert sum((await network.purse.fees()).values()) == 0
    assert network.complaints[0].startswith("the simnet ended with code 1")
    assert network.complaints[-1] == "worker-1: **BROKEN**"
    while processes_of(tmp_path):
        await trio.sleep(0.05)


def test_the_last_line_of_a_log_that_is_not_there(tmp_path: Path) -> None:
    assert last_line(tmp_path / "none") == ""
    (tmp_path / "log").write_bytes(b"one\ntwo \xff\n\n")
    assert last_line(tmp_path / "log") == "two \N{REPLACEMENT CHARACTER}"
