"""What a supervisor started ends with it, also when it was killed."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
import trio

from nostrain.devnet.processes import Processes
from nostrain.devnet.undertaker import left

SUPERVISOR = """
import sys, trio
from pathlib import Path
from nostrain.devnet.processes import Processes

async def main():
    processes = Processes()
    sleeper = (sys.executable, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(600)")
    one = await processes.start("one", sleeper, Path("one"))
    await processes.start("two", sleeper, Path("two"))
    await processes.kill("two")
    await trio.sleep_forever()

trio.run(main)
"""


def test_groups_are_added_and_taken_off() -> None:
    assert left(["+1\n", "+2\n", "-1\n", "+3\n"]) == {2, 3}


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="only Linux tells when a process that is no child of ours ends")
async def test_a_supervisor_that_is_killed_leaves_nothing_behind(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    supervisor = await trio.lowlevel.open_process([sys.executable, "-c", SUPERVISOR], cwd=tmp_path, env=environment)
    try:
        with trio.fail_after(60):
            while not (text := (tmp_path / "one").read_text() if (tmp_path / "one").exists() else "").endswith("\n"):
                await trio.sleep(0.02)
            watched = os.pidfd_open(int(text))
            supervisor.send_signal(signal.SIGKILL)
            await trio.lowlevel.wait_readable(watched)
    finally:
        supervisor.kill()
        await supervisor.wait()


async def test_the_undertaker_goes_with_the_last_child(tmp_path: Path) -> None:
    processes = Processes()
    sleeper = (sys.executable, "-c", "import time; time.sleep(600)")
    for name in ("one", "two"):
        await processes.start(name, sleeper, tmp_path / name)
    undertaker = processes._undertaker
    assert undertaker is not None
    await processes.kill("one")
    assert undertaker.poll() is None
    await processes.stop_all()
    assert undertaker.returncode == 0


@pytest.mark.parametrize("again", [False, True])
async def test_a_killed_undertaker_stops_nobody_from_working(tmp_path: Path, again: bool) -> None:
    processes = Processes()
    sleeper = (sys.executable, "-c", "import time; time.sleep(600)")
    await processes.start("one", sleeper, tmp_path / "one")
    assert processes._undertaker is not None
    processes._undertaker.kill()
    processes._undertaker.wait()
    if again:
        await processes.start("two", sleeper, tmp_path / "two")
    await processes.stop_all()
    assert processes.children == {}
