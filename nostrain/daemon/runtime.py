"""The loop of a node: collect inputs, step the machines, commit, then start the effects that the commit listed (design section 9).

Nothing leaves the process before the state that says so is durable. Any error that is not a remote's ends the loop: the process restarts
from its journal. The same loop runs in the daemon and in simulations; only the ports differ.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import trio

from nostrain.core import node
from nostrain.core.effects import Effect, Outcome
from nostrain.core.identity import Identity
from nostrain.core.inputs import Boot, Done, Input, Received, Tick
from nostrain.core.rows import NodeState, Outstanding
from nostrain.core.transaction import Note
from nostrain.daemon.ports import Ports
from nostrain.daemon.runners import Perform, perform
from nostrain.daemon.storage import Logged, batch_of, load_state
from nostrain.errors import NostrainError, RemoteProtocolError, Unavailable
from nostrain.ports.journal import Batch
from nostrain.protocol.event import Event
from nostrain.protocol.ledger import LedgerEntry, LedgerTotal
from nostrain.units import UnixTime
from nostrain.wire.messages import read_message_untrusted

log = logging.getLogger("nostrain.node")

BATCH = 64
"""Inputs that one commit takes at most."""
QUEUE = 1024
"""Inputs that may wait; feeds and effects block when it is full. The loop itself never puts anything in, so it cannot wait for itself."""
DISK_RETRY_S = 1.0
DISK_RETRY_MAX_S = 15.0
AGAIN_S = 5.0
"""Pause before an effect that just ended is run once more because the machines asked for the very same again."""

LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "fault": logging.ERROR}


@dataclass(eq=False)
class Running:
    """One run of one effect: the same effect, withdrawn and listed again, is another one."""

    effect: Effect
    scope: trio.CancelScope


@dataclass(eq=False)
class Ended:
    """A run came to its outcome. Whether anybody still wants it is decided when its turn in the queue comes."""

    running: Running
    outcome: Outcome


class Runtime:
    """One node. `run` returns only by cancellation or with the error that ended it."""

    def __init__(
        self,
        ports: Ports,
        identity: Identity,
        *,
        state: NodeState | None = None,
        observe: Callable[[Note], None] | None = None,
        runner: Perform | None = None,
    ) -> None:
        """`state`: what `load_state` read from the journal, if that was done already. `runner` performs the effects, if not `perform`.

        Raises ConfigError when this version cannot read the journal.
        """
        self.ports = ports
        self.identity = identity
        self.state: NodeState = load_state(ports.journal.load()) if state is None else state
        self.counters: Counter[str] = Counter()
        self.changed = trio.Event()
        self._observe = observe
        self._runner = runner
        self._send, self._inputs = trio.open_memory_channel[Input | Ended](QUEUE)
        self._running: dict[str, Running] = {}
        self._journal = trio.Lock()

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

    async def totals(self) -> tuple[LedgerTotal, ...]:
        """The whole ledger, summed up by run and kind."""
        async with self._journal:
            return await self.ports.offload(self.ports.journal.totals)

    async def ledger(self, start: int, limit: int) -> tuple[tuple[int, LedgerEntry], ...]:
        """At most `limit` entries of the ledger from sequence number `start`."""
        async with self._journal:
            return await self.ports.offload(lambda: self.ports.journal.ledger(start, limit))

    async def run(self) -> None:
        """Boot, resume what is still outstanding after it, then take inputs until cancelled."""
        since = self.ports.clock.now()
        async with trio.open_nursery() as nursery:
            # Boot goes before everything, also before what feeds have queued: no machine decides without knowing who it is.
            await self._take(nursery, [Boot(self.identity)])
            self._follow_effects(nursery, {})
            nursery.start_soon(self._timer, since)
            while True:
                await self._take(nursery, await self._collect())

    async def _collect(self) -> list[Input | Ended]:
        """At least one input, and whatever else is waiting."""
        inputs = [await self._inputs.receive()]
        while len(inputs) < BATCH:
            try:
                inputs.append(self._inputs.receive_nowait())
            except trio.WouldBlock:
                break
        return inputs

    async def _take(self, nursery: trio.Nursery, items: list[Input | Ended]) -> None:
        """Step every input; commit once; then, and only then, act."""
        now, state = self.ports.clock.now(), self.state
        logged: list[Logged] = []
        notes: list[Note] = []
        entries: list[LedgerEntry] = []
        ended: dict[str, Effect] = {}
        for item in items:
            input_ = self._done(item, state, ended) if isinstance(item, Ended) else item
            step = self._step(state, input_, now) if input_ is not None else None
            if input_ is None or step is None:
                continue
            notes += step.notes
            if step.state.rows != state.rows:
                logged.append(Logged(now, input_))
                entries += step.entries
                state = step.state
        for note in notes:
            self.note(note)
        if logged:
            await self._commit(batch_of(logged, self.state, state, entries))
            self.state = state
            self.changed.set()
            self.changed = trio.Event()
        if logged or ended:  # an outcome may lead back to the very state that asked for it
            self._follow_effects(nursery, ended)

    def _done(self, item: Ended, state: NodeState, ended: dict[str, Effect]) -> Done | None:
        """The input that an outcome makes, or None when its effect was withdrawn, perhaps for another of the same id, while it waited."""
        effect = item.running.effect
        if self._running.get(effect.id) is not item.running:
            return None
        del self._running[effect.id]
        row = state.rows.get(f"effect/{effect.id}")
        if not isinstance(row, Outstanding) or row.effect != effect:
            return None
        ended[effect.id] = effect
        return Done(effect.id, item.outcome)

    def _step(self, state: NodeState, input_: Input, now: UnixTime) -> node.Step | None:
        """One step; None for a message that breaks the machines.

        `node.step` is pure, so dropping a message is always possible; and it must be dropped: relays would deliver it again to the restarted
        process, for ever, and to everyone at once.
        """
        try:
            return node.step(state, input_, now)
        except NostrainError:
            raise
        except Exception as error:
            if not isinstance(input_, Received):
                raise
            message = input_.message
            said = f"event {message.id[:8]} from {message.author[:8]} broke the machines and is dropped: {type(error).__name__}: {error}"
            self.note(Note("fault", "messages_broken", said))
            log.debug("how event %s broke them", message.id, exc_info=True)
            return None

    async def _commit(self, batch: Batch) -> None:
        """Write the batch; with a full disk, wait for room: nothing was done yet, so nothing is lost."""
        delay = DISK_RETRY_S
        while True:
            try:
                async with self._journal:
                    await self.ports.offload(lambda: self.ports.journal.commit(batch))
            except Unavailable as error:
                self.note(Note("fault", "commits_delayed", f"the journal cannot be written, again in {delay:.0f} s: {error}"))
                await trio.sleep(delay)
                delay = min(delay * 2, DISK_RETRY_MAX_S)
            else:
                if delay > DISK_RETRY_S:
                    log.info("the journal can be written again")
                return

    def _follow_effects(self, nursery: trio.Nursery, ended: dict[str, Effect]) -> None:
        """Start what is newly listed, cancel what is listed no longer. `ended`: what this commit took the outcomes of."""
        listed = {effect.id: effect for effect in node.outstanding(self.state)}
        for effect_id, running in list(self._running.items()):
            if listed.get(effect_id) != running.effect:
                running.scope.cancel()
                del self._running[effect_id]
        for effect_id, effect in listed.items():
            if effect_id not in self._running:
                running = self._running[effect_id] = Running(effect, trio.CancelScope())
                nursery.start_soon(self._perform, running, AGAIN_S if ended.get(effect_id) == effect else 0.0)

    async def _perform(self, running: Running, delay: float) -> None:
        """Run one effect and hand its outcome back, unless it was withdrawn meanwhile."""
        with running.scope:
            await trio.sleep(delay)
            outcome = await (self._runner or perform)(running.effect, self.ports)
            await self._send.send(Ended(running, outcome))

    async def _timer(self, since: UnixTime) -> None:
        """A Tick at every deadline after `since` that the state names. A clock that is set back makes its deadlines come again."""
        last = since
        while True:
            last = min(last, self.ports.clock.now())
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
