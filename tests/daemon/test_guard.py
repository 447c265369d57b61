"""The engine under its guard: an orphan ends soon, whatever it is doing; two never run in one folder at once. Real processes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nostrain.daemon.guard import EXIT_ORPHAN

BUSY = "import sys, time\nprint('works', flush=True)\nwhile True: time.sleep(0.01)\n"
PARENT = """
import os, subprocess, sys, time
command = [sys.executable, "-P", "-m", "nostrain.daemon.guard", sys.argv[1], str(os.getpid()), "busy"]
child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "busy.py").write_text(BUSY)
    (tmp_path / "modules" / "brief.py").write_text("import sys\nprint(sys.argv[1:], __name__, sys.stdin.read())\n")
    return {**os.environ, "PYTHONPATH": str(tmp_path / "modules")}


def guard(folder: Path, module: str, environment: dict[str, str], parent: int | None = None) -> subprocess.Popen[str]:
    command = [sys.executable, "-P", "-m", "nostrain.daemon.guard", str(folder / "lock"), str(parent or os.getpid()), module]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True)


def alive(pid: int) -> bool:
    """Whether the process still runs; a zombie that nobody reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_an_orphan_ends_within_seconds_in_the_middle_of_its_work(tmp_path: Path, environment: dict[str, str]) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "lock")], stdout=subprocess.PIPE, text=True, env=environment, stdin=subprocess.DEVNULL
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert alive(child)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until = time.monotonic() + 10
    while alive(child) and time.monotonic() < until:
        time.sleep(0.02)
    gone = not alive(child)
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    assert gone


def test_the_next_engine_waits_until_the_last_is_gone(tmp_path: Path, environment: dict[str, str]) -> None:
    with guard(tmp_path, "busy", environment) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "works\n"
        with guard(tmp_path, "brief", environment) as second:
            assert second.stdin is not None
            with pytest.raises(subprocess.TimeoutExpired):
                second.wait(0.7)
            first.kill()
            output, _ = second.communicate("job", timeout=10)
    assert output == "[] __main__ job\n"
    assert second.returncode == 0


def test_one_whose_daemon_is_gone_before_it_began_never_begins(tmp_path: Path, environment: dict[str, str]) -> None:
    with guard(tmp_path, "busy", environment, parent=1) as orphan:
        assert orphan.wait(10) == EXIT_ORPHAN
