"""The loop of a node: collect inputs, step the machines, commit, then start the effects that the commit listed (design section 9).

Nothing leaves the process before the state that says so is durable. Any error that is not a remote's ends the loop: the process restarts
from its journal. The same loop runs in the daemon and in simulations; only the ports differ.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable

import trio

from nostrain.core import node
from nostrain.core.effects import Effect
from nostrain.core.inputs import Boot, Done, Input, Received, Tick
from nostrain.core.rows import Identity, NodeState, Outstanding
from nostrain.core.transaction import Note
from nostrain.daemon.ports import Ports
from nostrain.daemon.runners import perform
from nostrain.daemon.storage import Logged, batch_of, load_state
from nostrain.errors import RemoteProtocolError, Unavailable
from nostrain.ports.journal import Batch
from nostrain.protocol.event import Event
from nostrain.units import UnixTime
from nostrain.wire.messages import read_message_untrusted

log = logging.getLogger("nostrain.node")

BATCH = 64
"""Inputs that one commit takes at most."""
QUEUE = 1024
"""Inputs that may wait; feeds block when it is full."""
DISK_RETRY_S = 2.0

LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "fault": logging.ERROR}


class Runtime:
    """One node. `run` returns only by cancellation or with the error that ended it."""

    def __init__(self, ports: Ports, identity: Identity, *, observe: Callable[[Note], None] | None = None) -> None:
        self.ports = ports
        self.identity = identity
        self.state: NodeState = load_state(ports.journal.load())
        self.counters: Counter[str] = Counter()
        self.changed = trio.Event()
        self._observe = observe
        self._send, self._inputs = trio.open_memory_channel[Input](QUEUE)
        self._running: dict[str, tuple[Effect, trio.CancelScope]] = {}

    async def put(self, input_: Input) -> None:
        """Hand in an input; waits while the queue is full. Cancellable: then it was not taken."""
        await self._send.send(input_)

    async def receive(self, event: Event) -> None:
        """Hand in a verified event from a relay or the mail; what it says may still be nonsense, which is counted and dropped."""
        try:
            message = read_message_untrusted(event)
        except RemoteProtocolError as error:
            self.note(Note("warning", "messages_refused", str(error)))
        else:
            await self.put(Received(message))

    def note(self, note: Note) -> None:
        """Count and log."""
        self.counters[note.counter] += 1
        log.log(LEVELS[note.level], "%s", note.text)
        if self._observe is not None:
            self._observe(note)

    async def run(self) -> None:
        """Boot, resume what was outstanding, then take inputs until cancelled."""
        async with trio.open_nursery() as nursery:
            for effect in node.outstanding(self.state):
                self._start(nursery, effect)
            self._send.send_nowait(Boot(self.identity))
            nursery.start_soon(self._timer)
            while True:
                await self._take(nursery, await self._collect())

    async def _collect(self) -> list[Input]:
        """At least one input, and whatever else is waiting."""
        inputs = [await self._inputs.receive()]
        while len(inputs) < BATCH:
            try:
                inputs.append(self._inputs.receive_nowait())
            except trio.WouldBlock:
                break
        return inputs

    async def _take(self, nursery: trio.Nursery, inputs: list[Input]) -> None:
        """Step every input; commit once; then, and only then, act."""
        now, state = self.ports.clock.now(), self.state
        logged: list[Logged] = []
        notes: list[Note] = []
        for input_ in inputs:
            step = node.step(state, input_, now)
            notes += step.notes
            if step.state.rows != state.rows:
                logged.append(Logged(now, input_))
                state = step.state
        for note in notes:
            self.note(note)
        if logged:
            await self._commit(batch_of(logged, self.state, state))
            self.state = state
            self._follow_effects(nursery)
            self.changed.set()
            self.changed = trio.Event()

    async def _commit(self, batch: Batch) -> None:
        """Write the batch; with a full disk, wait for room: nothing was done yet, so nothing is lost."""
        while True:
            try:
                await self.ports.offload(lambda: self.ports.journal.commit(batch))
            except Unavailable as error:
                self.note(Note("fault", "commits_delayed", f"the journal cannot be written, waiting: {error}"))
                await trio.sleep(DISK_RETRY_S)
            else:
                return

    def _follow_effects(self, nursery: trio.Nursery) -> None:
        """Start what is newly listed, cancel what is listed no longer."""
        listed = {effect.id: effect for effect in node.outstanding(self.state)}
        for effect_id, (effect, scope) in list(self._running.items()):
            if listed.get(effect_id) != effect:
                scope.cancel()
                del self._running[effect_id]
        for effect_id, effect in listed.items():
            if effect_id not in self._running:
                self._start(nursery, effect)

    def _start(self, nursery: trio.Nursery, effect: Effect) -> None:
        scope = trio.CancelScope()
        self._running[effect.id] = (effect, scope)
        nursery.start_soon(self._perform, effect, scope)

    async def _perform(self, effect: Effect, scope: trio.CancelScope) -> None:
        """Run one effect and hand its outcome back, unless it was withdrawn meanwhile."""
        with scope:
            await self.put(Done(effect.id, await perform(effect, self.ports)))

    async def _timer(self) -> None:
        """A Tick at every deadline that the state names."""
        last: UnixTime = self.ports.clock.now()
        while True:
            changed = self.changed
            deadline = node.next_deadline(self.state, last)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._cancel_on, changed, nursery.cancel_scope)
                if deadline is None:
                    await trio.sleep_forever()
                else:
                    await self.ports.clock.sleep_until(deadline)
                nursery.cancel_scope.cancel()
            if deadline is not None and self.ports.clock.now() >= deadline:
                last = deadline
                await self.put(Tick())

    @staticmethod
    async def _cancel_on(event: trio.Event, scope: trio.CancelScope) -> None:
        await event.wait()
        scope.cancel()


def outstanding_ids(state: NodeState) -> list[str]:
    """Ids of the effects that have not ended, for status displays."""
    return sorted(row.effect.id for row in state.rows.values() if isinstance(row, Outstanding))
