"""`nostraind` as operators meet it: one line and the right exit code for whatever is wrong; started, asked, stopped as systemd does."""

from __future__ import annotations

import errno
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nostrain.core.identity import Identity
from nostrain.core.rows import NodeState, Run
from nostrain.daemon import blob_server, compose
from nostrain.daemon.main import EXIT_FAILED, OneLine, explain
from nostrain.daemon.storage import batch_of
from nostrain.errors import EX_CONFIG, ConfigError, LocalProtocolError, Unavailable
from nostrain.journal.sqlite import SqliteJournal
from nostrain.keys.store import open_root
from nostrain.ports.journal import Batch
from nostrain.units import Pubkey
from tests.core.actors import EXAMPLES
from tests.daemon.whole_daemon import WORKER, configure, refused, start
from tests.docs.examples import COORDINATOR

DAEMON = (sys.executable, "-m", "nostrain.daemon")
CTL = (sys.executable, "-m", "nostrain.ctl")
LEAD = 'roles = ["coordinator", "blobs"]\nrelays = ["ws://127.0.0.1:9"]\n[coordinator.run]\nname = "run"\nrounds = 1\n'


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("NOSTRAIN_") and not name.startswith("NOSTRAIN_TEST_"):
            monkeypatch.delenv(name)


def test_no_configuration_file(tmp_path: Path) -> None:
    refused(start(tmp_path / "none.toml"), "none.toml", "no such file")


def test_a_truncated_file(tmp_path: Path) -> None:
    path = configure(tmp_path, WORKER)
    path.write_text(path.read_text()[:-8])
    refused(start(path), "not TOML", "cut short?")


def test_an_unknown_key(tmp_path: Path) -> None:
    refused(start(configure(tmp_path, WORKER + "thread = 2\n")), "thread", "unknown key")


def test_an_override_that_is_none(tmp_path: Path) -> None:
    refused(start(configure(tmp_path), "--set", "log_level"), "is not key=value")


def test_a_data_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    refused(start(configure(tmp_path)), "data_dir", "data")


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything: a data folder that cannot be read was not tested")
def test_a_data_folder_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0)
    refused(start(configure(tmp_path)), "data_dir", "Permission denied")


def test_a_key_that_others_can_read(tmp_path: Path) -> None:
    open_root(tmp_path / "data")
    (tmp_path / "data" / "root.key").chmod(0o644)
    refused(start(configure(tmp_path)), "root.key", "others can read it", "chmod 600")


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = start(configure(tmp_path, f'roles = ["blobs"]\n[blobs]\nbind = "127.0.0.1:{port}"\n'))
    refused(result, "blobs.bind", str(port), "EADDRINUSE")


def test_a_run_that_pays_and_no_lightning_node(tmp_path: Path) -> None:
    text = LEAD + 'validators = ["any"]\n[coordinator.run.settlement]\nmode = "hold"\npool_sat = 6400\nslots = 4\n'
    refused(start(configure(tmp_path, text)), "coordinator.run.settlement.mode", "needs a Lightning node", "lightning.socket")


def test_text_that_is_not_there(tmp_path: Path) -> None:
    refused(start(configure(tmp_path, f'{LEAD}text = "{tmp_path}/none"\n')), "coordinator.run.text", "no such folder")


def test_an_engine_that_cannot_be_started(tmp_path: Path) -> None:
    refused(start(configure(tmp_path, f'{WORKER}[engine]\npython = "{tmp_path}/python"\n')), "engine.python", "cannot be started")


def test_a_control_path_that_is_too_long(tmp_path: Path) -> None:
    refused(start(configure(tmp_path, 'roles = ["blobs"]\n' + f'control = "/tmp/{"x" * 110}"\n')), "control", "longer than")


def test_a_control_path_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("precious")
    refused(start(configure(tmp_path, 'roles = ["blobs"]\n' + f'control = "{tmp_path}/notes.txt"\n')), "no socket")
    assert (tmp_path / "notes.txt").read_text() == "precious"


def test_a_journal_that_is_none(tmp_path: Path) -> None:
    open_root(tmp_path / "data")
    (tmp_path / "data" / "journal.sqlite").write_bytes(os.urandom(8192))
    refused(start(configure(tmp_path, WORKER)), "data_dir", "journal")


def test_a_journal_row_from_another_version(tmp_path: Path) -> None:
    open_root(tmp_path / "data")
    with SqliteJournal.open(tmp_path / "data" / "journal.sqlite") as journal:
        journal.commit(Batch((), {"run": b'{"type":"run","from":"the future"}'}))
    refused(start(configure(tmp_path, WORKER)), "run", "cannot read the row", "Run the version that wrote it")


def test_a_journal_of_another_key(tmp_path: Path) -> None:
    open_root(tmp_path / "data")
    theirs = Identity(pubkey=Pubkey("ab" * 32), name="node", roles=(), work_dir="")
    with SqliteJournal.open(tmp_path / "data" / "journal.sqlite") as journal:
        journal.commit(batch_of([], NodeState(), NodeState({"node": theirs})))
    refused(start(configure(tmp_path, WORKER)), "data_dir", "belongs to the key abababab")


def test_a_journal_in_the_middle_of_a_run_of_an_earlier_version(tmp_path: Path) -> None:
    """Its manifest said what a level pays, and not how large the pool is: we would lock nothing, or something else."""
    open_root(tmp_path / "data")
    run = Run(EXAMPLES.run, COORDINATOR.pubkey, EXAMPLES.manifest, EXAMPLES.run, EXAMPLES.state_id)
    ours = batch_of([], NodeState(), NodeState({"run": run}))
    earlier = (ours.rows["run"] or b"").replace(b'"pool_msat":8000000,"slots":8', b'"level_msat":250000')
    with SqliteJournal.open(tmp_path / "data" / "journal.sqlite") as journal:
        journal.commit(Batch((), {"run": earlier}))
    refused(start(configure(tmp_path, WORKER)), "journal.sqlite", "a pool for 0 workers", "Finish the run with the version that began it")


def test_an_index_of_blobs_that_is_damaged(tmp_path: Path) -> None:
    open_root(tmp_path / "data")
    (tmp_path / "data" / "blobs").mkdir()
    (tmp_path / "data" / "blobs" / "index.sqlite").write_bytes(os.urandom(8192))
    refused(start(configure(tmp_path)), "data_dir", "index of blobs")


def test_a_disk_that_is_full_at_the_start_is_worth_another_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_data: Path) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(compose, "clean_work_dir", full)
    result = start(configure(tmp_path))
    assert result.exit_code == EXIT_FAILED
    assert result.stderr.splitlines() == [
        f"nostraind: Unavailable: data folder {tmp_path}/data: [Errno {errno.ENOSPC}] No space left on device"
    ]


def test_what_a_killed_engine_left_half_written_is_removed(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / ".00001.delta.4711.tmp").write_text("half")
    (work / "00001.delta").write_text("whole")
    assert compose.clean_work_dir(tmp_path) == work
    assert [path.name for path in work.iterdir()] == ["00001.delta"]


@pytest.mark.parametrize(
    ("named", "bound", "expected"),
    [
        ((), None, ((), ())),
        ((), "http://h:1", (("http://h:1",), ("http://h:1",))),
        (("http://h:1/",), "http://h:1", (("http://h:1/",), ("http://h:1/",))),
        (("https://me.example",), "http://0.0.0.0:1", (("https://me.example",), ())),
        (("https://other", "http://h:1"), "http://h:1", (("https://other", "http://h:1"), ("http://h:1",))),
        (("https://other",), None, (("https://other",), ())),
    ],
)
def test_which_servers_are_named_to_others_and_which_is_ours(
    named: tuple[str, ...], bound: str | None, expected: tuple[tuple[str, ...], tuple[str, ...]]
) -> None:
    """A blob that lies in our store is on our server; it is not on everyone's."""
    assert blob_server.advertised(named, bound) == expected


def broken() -> None:
    raise KeyError("a bug")


def test_explanations_are_lines_and_codes() -> None:
    wrong = ConfigError("key", "value", "reason", "Fix")
    code, lines = explain(ExceptionGroup("", [Unavailable("later"), ExceptionGroup("", [wrong])]))
    assert (code, lines) == (EX_CONFIG, ["key = 'value': reason. Fix"])
    code, lines = explain(ExceptionGroup("", [LocalProtocolError("we contradict ourselves"), Unavailable("gone")]))
    assert (code, lines) == (EXIT_FAILED, ["LocalProtocolError: we contradict ourselves", "Unavailable: gone"])


def test_a_bug_is_told_with_its_place() -> None:
    with pytest.raises(KeyError) as caught:
        broken()
    code, (line,) = explain(ExceptionGroup("", [caught.value]))
    assert code == EXIT_FAILED
    assert line.startswith("KeyError: 'a bug' (in broken, test_main.py:")


def test_a_log_line_is_one_line_whatever_strangers_call_themselves() -> None:
    record = logging.LogRecord("nostrain.node", logging.INFO, "", 0, "worker %s enrolled", ("x\n2026 E forged\x1b[2J",), None)
    line = OneLine("%(levelname).1s %(name)s: %(message)s").format(record)
    assert line == "I nostrain.node: worker x\ufffd2026 E forged\ufffd[2J enrolled"


@contextmanager
def running(path: Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A daemon in a process of its own, ready."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        address = str(path.parent / "notify")
        systemd.bind(address)
        systemd.settimeout(20)
        process = subprocess.Popen(
            [*DAEMON, "--config", str(path)],
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "NOTIFY_SOCKET": address, **environment},
        )
        try:
            assert systemd.recv(100) == b"READY=1"
            yield process
            assert systemd.recv(100) == b"STOPPING=1"
        finally:
            process.kill()
            process.communicate()
            Path(address).unlink()


def ctl(control: Path, command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*CTL, command, "--control", str(control)], capture_output=True, text=True, check=False, timeout=20)


def test_started_asked_and_stopped(tmp_path: Path) -> None:
    """READY=1, status, metrics, no second daemon on the folder, stop, exit code 0, nothing left that would hinder the next."""
    path, control = configure(tmp_path), tmp_path / "data" / "control.sock"
    with running(path) as process:
        status = ctl(control, "status")
        assert status.returncode == 0
        assert "node, blobs, version" in status.stdout
        assert "http://127.0.0.1:" in status.stdout
        assert "nostrain_effects_outstanding 0" in ctl(control, "metrics").stdout
        refused(start(path), "data_dir", "in use by another nostraind", str(process.pid))
        assert ctl(control, "stop").stdout == "stopping\n"
        _, errors = process.communicate(timeout=20)
        assert process.returncode == 0, errors
        assert "Traceback" not in errors
        assert not control.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    """A node with a journal and relays that are not there: it waits for them and stops at once."""
    with running(configure(tmp_path, WORKER)) as process:
        process.send_signal(number)
        _, errors = process.communicate(timeout=20)
        assert process.returncode == 0, errors
        assert "Traceback" not in errors
