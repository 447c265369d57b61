"""A whole network on loopback: one relay and one `nostraind` for each participant, watched from the relay, cleaned up whatever happens.

The supervisor starts and stops processes and reads the relay. It passes nothing between the daemons: each is told the relay's address, and
the coordinator where its text lies.
"""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from nostrain.devnet.layout import Options, Participant, lay_out
from nostrain.devnet.observer import Observer
from nostrain.devnet.processes import Processes, start_relay
from nostrain.errors import RemoteProtocolError, Unavailable
from nostrain.nostr.pool import open_pool
from nostrain.protocol.event import Filter
from nostrain.wire import kinds
from nostrain.wire.control import Answer, Request, parse_answer_untrusted

STAGGER_S = 1.0
STALL_S = 420.0
"""Longest silence on the relay before the run is given up: more than all phases of a round together."""


class Devnet:
    """A running network. Made by `open_devnet`."""

    def __init__(self, root: Path, options: Options, processes: Processes, participants: list[Participant], observer: Observer) -> None:
        self.root, self.options = root, options
        self.processes, self.participants, self.observer = processes, participants, observer
        self.changed = trio.Event()

    def participant(self, name: str) -> Participant:
        """The participant of that name."""
        return next(one for one in self.participants if one.name == name)

    async def start(self, participant: Participant) -> None:
        """Start its daemon (again)."""
        command = (sys.executable, "-m", "nostrain.daemon", "--config", str(participant.config))
        await self.processes.start(participant.name, command, participant.log)

    async def kill(self, name: str) -> None:
        """`kill -9` of a daemon and of its engine."""
        await self.processes.kill(name)

    async def wait_for(self, condition: Callable[[], bool]) -> None:
        """Return when `condition` holds. Raises Unavailable when a process ended by itself or nothing happens any more."""
        while not condition():
            changed, before = self.changed, self.observer.events
            with trio.move_on_after(STALL_S):
                while not changed.is_set():
                    self.check()
                    with trio.move_on_after(1):
                        await changed.wait()
            if self.observer.events == before:
                raise Unavailable(f"nothing was said on the relay for {STALL_S:.0f} s")

    def check(self) -> None:
        """Raises Unavailable naming a process that ended by itself, with the last line of its log."""
        for child in self.processes.dead():
            log = self.root / "relay.log" if child.name == "relay" else self.participant(child.name).log
            raise Unavailable(f"{child.name} ended with code {child.exit_code}: {last_line(log)}")

    async def status(self, name: str) -> Answer:
        """What a daemon says of itself on its control socket. Raises Unavailable."""
        return await ask(self.participant(name).control, Request("status"))

    async def follow(self) -> None:
        """Read the relay for ever."""
        async with open_pool([(self.root / "relay.url").read_text().strip()]) as pool, contextlib.AsyncExitStack() as stack:
            wanted = Filter(kinds=kinds.PUBLIC, tags=(("t", ("nostrain",)),))
            events = await stack.enter_async_context(pool.subscribe([wanted]))
            async for event in events:
                self.observer.take(event)
                changed, self.changed = self.changed, trio.Event()
                changed.set()


@asynccontextmanager
async def open_devnet(root: Path, options: Options, tell: Callable[[str], None]) -> AsyncIterator[Devnet]:
    """Start everyone, staggered; stop everyone when the context is left, also by an error, Ctrl-C or SIGTERM."""
    processes = Processes()
    try:
        relay = await start_relay(processes, root)
        participants = lay_out(root, options, relay)
        observer = Observer(tell, {one.pubkey: one.name for one in participants})
        devnet = Devnet(root, options, processes, participants, observer)
        tell(f"relay {relay}; {len(participants)} daemons in {root}")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(devnet.follow)
            for participant in participants:
                await devnet.start(participant)
                await trio.sleep(STAGGER_S)
            yield devnet
            nursery.cancel_scope.cancel()
    finally:
        await processes.stop_all()


async def ask(path: Path, request: Request) -> Answer:
    """One request to a control socket. Raises Unavailable when nobody answers sense there."""
    import msgspec

    try:
        with trio.fail_after(10):
            async with await trio.open_unix_socket(str(path)) as stream:
                await stream.send_all(msgspec.json.encode(request) + b"\n")
                data = b""
                async for chunk in stream:
                    data += chunk
        return parse_answer_untrusted(data)
    except (OSError, trio.BrokenResourceError, trio.TooSlowError, RemoteProtocolError) as error:
        raise Unavailable(f"{path}: {error}") from None


def last_line(path: Path) -> str:
    """The last line of a log that says something."""
    try:
        lines = path.read_text(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1] if lines else ""


@asynccontextmanager
async def cancelled_by_signals() -> AsyncIterator[trio.CancelScope]:
    """Cancel the body on SIGTERM or SIGINT, so that every finally runs; `cancelled_caught` of the scope tells."""
    async with trio.open_nursery() as nursery:

        async def watch() -> None:
            with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
                async for _ in signals:
                    scope.cancel()

        with trio.CancelScope() as scope:
            nursery.start_soon(watch)
            yield scope
        nursery.cancel_scope.cancel()
