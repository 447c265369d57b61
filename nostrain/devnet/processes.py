"""The processes of a devnet: each in a process group of its own, started, watched, killed and started again, all gone at the end.

Also at an end by `kill -9`: an undertaker (`devnet.undertaker`) is told of every group, and kills what is left once nobody can speak to it any more.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import trio

from nostrain.errors import Unavailable

UNDERTAKER = Path(__file__).with_name("undertaker.py")
STOP_GRACE_S = 10.0
POLL_S = 0.05


@dataclass
class Child:
    """A running process and the group that it leads."""

    name: str
    process: trio.Process

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self.process.poll()

    @property
    def ending(self) -> str:
        """How it ended, in words."""
        code = self.exit_code
        if code is None:
            return "still runs"
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"


class Processes:
    """Children by name. Use `stop_all` in a finally: it shields itself from cancellation."""

    def __init__(self) -> None:
        self.children: dict[str, Child] = {}
        self._undertaker: subprocess.Popen[bytes] | None = None

    async def start(self, name: str, command: Sequence[str], log: Path) -> Child:
        """Start `command` in a session of its own, output appended to `log`."""
        with log.open("ab") as output:
            # Settings of ours may be in the environment for a daemon of this machine's own; they are not meant for these.
            ours = {name: value for name, value in os.environ.items() if not name.startswith("NOSTRAIN_")}
            environment = {**ours, "PYTHONUNBUFFERED": "1"}
            process: trio.Process = await trio.lowlevel.open_process(
                list(command), stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, env=environment
            )
        child = self.children[name] = Child(name, process)
        self._tell("+", child)
        return child

    def _tell(self, sign: str, child: Child) -> None:
        """Have the undertaker look after a group, or no longer. It starts with the first, in a session of its own: what kills ours passes it by."""
        if self._undertaker is None:
            command = (sys.executable, "-I", "-S", str(UNDERTAKER))
            self._undertaker = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True, bufsize=0)
        assert self._undertaker.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # somebody killed it: then there is none
            self._undertaker.stdin.write(f"{sign}{child.process.pid}\n".encode())

    def _dismiss(self) -> None:
        """The undertaker ends by itself: nothing is left to look after."""
        if self._undertaker is not None:
            assert self._undertaker.stdin is not None
            self._undertaker.stdin.close()
            self._undertaker.wait()
            self._undertaker = None

    async def kill(self, name: str) -> None:
        """`kill -9` of the whole group, and wait until it is gone."""
        child = self.children.pop(name)
        signal_group(child, signal.SIGKILL)
        await self._gone(child)

    async def _gone(self, child: Child) -> None:
        """Wait until the first of the group is gone, and have it looked after no longer; with the last child the undertaker goes too."""
        await child.process.wait()
        self._tell("-", child)
        if not self.children:
            self._dismiss()

    def dead(self) -> list[Child]:
        """Children that ended by themselves."""
        return [child for child in self.children.values() if child.exit_code is not None]

    async def stop(self, name: str, grace_s: float) -> int:
        """SIGTERM to one child, which stops its own, and SIGKILL to its group if it has not ended after a while; how it ended."""
        with trio.CancelScope(shield=True):
            child = self.children.pop(name)
            child.process.terminate()
            with trio.move_on_after(grace_s):
                await child.process.wait()
            signal_group(child, signal.SIGKILL)
            await self._gone(child)
        return int(child.process.returncode or 0)

    async def stop_all(self) -> None:
        """SIGTERM to every group, SIGKILL to what is left after a while; returns when all are gone, even when cancelled."""
        with trio.CancelScope(shield=True):
            for child in self.children.values():
                signal_group(child, signal.SIGTERM)
            with trio.move_on_after(STOP_GRACE_S):
                for child in self.children.values():
                    await child.process.wait()
            for name, child in list(self.children.items()):
                signal_group(child, signal.SIGKILL)
                del self.children[name]
                await self._gone(child)


def signal_group(child: Child, number: signal.Signals) -> None:
    """Signal the group; one that is gone already is what we want."""
    try:
        os.killpg(child.process.pid, number)
    except ProcessLookupError:
        return


async def start_relay(processes: Processes, folder: Path, name: str, *, port: int | None = None, lasting: bool = False) -> str:
    """Start an embedded relay on a free port or on `port`; its URL, which is also written to `folder`/`name`.url.

    A `lasting` one keeps its events in `folder`, and has them again after a restart; any other begins with none.
    Raises Unavailable when it does not come up.
    """
    port_file = folder / f"{name}.url"
    port_file.unlink(missing_ok=True)
    where = (*(() if port is None else ("--port", str(port))), *(("--db", str(folder / f"{name}.db")) if lasting else ()))
    command = (sys.executable, "-m", "nostrain.devnet.relay", "--port-file", str(port_file), *where)
    child = await processes.start(name, command, folder / f"{name}.log")
    with trio.move_on_after(30):
        while not port_file.exists():
            if child.exit_code is not None:
                break
            await trio.sleep(POLL_S)
        else:
            return port_file.read_text().strip()
    raise Unavailable(f"{name} did not start; its log is {folder / name}.log")
