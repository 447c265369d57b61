"""A whole network on loopback: relays and one `nostraind` for each participant, watched from the relays, cleaned up whatever happens.

The supervisor starts and stops processes and reads the relays. It passes nothing between the daemons: each is told the relays' addresses, and
the coordinator where its text lies.
"""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import trio

from nostrain.devnet.layout import Options, Participant, lay_out, relays_of
from nostrain.devnet.lightning import Lightning, open_lightning
from nostrain.devnet.observer import Observer
from nostrain.devnet.processes import Processes, start_relay
from nostrain.devnet.waiting import awaited, longest_silence
from nostrain.errors import RemoteProtocolError, Unavailable
from nostrain.nostr.pool import open_pool
from nostrain.protocol.event import Filter
from nostrain.wire import kinds
from nostrain.wire.control import Answer, Request, parse_answer_untrusted

STAGGER_S = 1.0
POLL_S = 0.5
ASK_S = 5.0
MOST_BLAMED = 3


class Devnet:
    """A running network. Made by `open_devnet`."""

    def __init__(
        self,
        root: Path,
        options: Options,
        processes: Processes,
        relays: dict[str, str],
        participants: list[Participant],
        observer: Observer,
    ) -> None:
        self.root, self.options = root, options
        self.relays = relays
        """URLs by name."""
        self.processes, self.participants, self.observer = processes, participants, observer
        self.changed = trio.Event()
        self.lightning: Lightning | None = None
        """The network of a run that is paid."""
        self.heard = trio.current_time()
        """When the last event came."""

    def participant(self, name: str) -> Participant:
        """The participant of that name."""
        return next(one for one in self.participants if one.name == name)

    async def start(self, participant: Participant) -> None:
        """Start its daemon (again)."""
        module = "nostrain.daemon" if participant.cheat is None else "nostrain.devnet.cheater"
        cheat = () if participant.cheat is None else ("--cheat", participant.cheat)
        command = (sys.executable, "-m", module, "--config", str(participant.config), *cheat)
        await self.processes.start(participant.name, command, participant.log)

    async def kill(self, name: str) -> None:
        """`kill -9` of a daemon and of its engine, or of a relay: the run has to do without it."""
        await self.processes.kill(name)

    async def restart_relay(self, name: str) -> None:
        """Start a relay again where it was, after it was killed: with its events if it is a lasting one, else without any.

        Raises Unavailable when it does not come up.
        """
        port = int(self.relays[name].rpartition(":")[2])
        await start_relay(self.processes, self.root, name, port=port, lasting=lasting(self.options, name))

    async def wait_for(self, condition: Callable[[], bool]) -> None:
        """Return when `condition` holds. Raises Unavailable, naming who, when a process ended by itself or nothing happens any more."""
        while not condition():
            self.check()
            limit = self.options.stall_s or longest_silence(self.observer)
            if trio.current_time() - self.heard > limit:
                raise Unavailable(f"nothing was said on any relay for {limit:.0f} s: {self.blame()}")
            changed = self.changed
            with trio.move_on_after(POLL_S):
                await changed.wait()

    def check(self) -> None:
        """Raises Unavailable naming a process that ended by itself, with the last line of its log."""
        lightning = [self.lightning.child] if self.lightning and self.lightning.child.exit_code is not None else []
        for child in (*lightning, *self.processes.dead()):
            raise Unavailable(f"{child.name} {child.ending}; its log ends: {last_line(self.log_of(child.name))}")

    def blame(self) -> str:
        """Whom the run waits for, and what they said last in their logs."""
        names, what = awaited(self.observer, self.participants)
        logs = [f"; the log of {name} ends: {last_line(self.log_of(name))}" for name in names[:MOST_BLAMED]]
        return f"{what}, waiting for {', '.join(names)}{''.join(logs)}"

    def log_of(self, name: str) -> Path:
        """The log of a process."""
        return self.root / f"{name}.log" if name in (*self.relays, self.options.lightning) else self.participant(name).log

    async def status(self, name: str) -> Answer:
        """What a daemon says of itself on its control socket. Raises Unavailable."""
        return await ask(self.participant(name).control, Request("status"))

    async def follow(self) -> None:
        """Read the relays for ever."""
        async with open_pool(list(self.relays.values())) as pool, contextlib.AsyncExitStack() as stack:
            ours = tuple(one.pubkey for one in self.participants) if self.options.relay_urls else ()
            wanted = Filter(authors=ours, kinds=kinds.PUBLIC, tags=(("t", ("nostrain",)),))
            events = await stack.enter_async_context(pool.subscribe([wanted]))
            async for event in events:
                self.observer.take(event)
                self.heard = trio.current_time()
                changed, self.changed = self.changed, trio.Event()
                changed.set()


@asynccontextmanager
async def open_devnet(root: Path, options: Options, tell: Callable[[str], None]) -> AsyncIterator[Devnet]:
    """Start everyone, staggered; stop everyone when the context is left, also by an error, Ctrl-C or SIGTERM: the Lightning network last."""
    async with contextlib.AsyncExitStack() as stack:
        lightning = await stack.enter_async_context(open_lightning(root, options)) if options.paid else None
        devnet = await stack.enter_async_context(open_daemons(root, options, tell, lightning))
        yield devnet


@asynccontextmanager
async def open_daemons(root: Path, options: Options, tell: Callable[[str], None], lightning: Lightning | None) -> AsyncIterator[Devnet]:
    """Relays, daemons, and the watch over them."""
    processes = Processes()
    try:
        relays = await start_relays(processes, root, options)
        participants = lay_out(root, options, list(relays.values()))
        silent = frozenset(one.pubkey for one in participants if one.cheat == "silent-validator")
        observer = Observer(tell, {one.pubkey: one.name for one in participants}, silent)
        observer.roles = tuple(one.role for one in participants)
        devnet = Devnet(root, options, processes, relays, participants, observer)
        devnet.lightning = lightning
        tell(f"{'relay' if len(relays) == 1 else 'relays'} {', '.join(relays.values())}; {len(participants)} daemons in {root}")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(devnet.follow)
            if lightning is not None:
                nursery.start_soon(lightning.purse.watch, tell)
            for participant in participants:
                await devnet.start(participant)
                await trio.sleep(STAGGER_S)
            yield devnet
            nursery.cancel_scope.cancel()
    finally:
        await processes.stop_all()


async def start_relays(processes: Processes, root: Path, options: Options) -> dict[str, str]:
    """Start all of them at once, unless they are there already; their URLs by name. Raises Unavailable, in a group, when one does not come up."""
    if options.relay_urls:
        return dict(zip(relays_of(options), options.relay_urls, strict=True))
    urls = dict.fromkeys(relays_of(options), "")

    async def start(name: str) -> None:
        urls[name] = await start_relay(processes, root, name, lasting=lasting(options, name))

    async with trio.open_nursery() as nursery:
        for name in urls:
            nursery.start_soon(start, name)
    return urls


def lasting(options: Options, name: str) -> bool:
    """Whether the relay of that name keeps its events over a restart."""
    return name in relays_of(options)[: options.lasting_relays]


async def ask(path: Path, request: Request) -> Answer:
    """One request to a control socket. Raises Unavailable when nobody answers sense there."""
    try:
        with trio.fail_after(ASK_S):
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
