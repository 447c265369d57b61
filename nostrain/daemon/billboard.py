"""What a daemon tells whoever looks for runs, and hears of who is there: run pointer, presence, relay and server lists, handler information.

None of it is a statement of the protocol: it is made from the state, never enters it, and is forgotten at a restart (ADR 0044). What cannot be
published is counted, and said again later.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Literal

import trio

from nostrain.core.rounds.round import phase
from nostrain.core.rows import Duty, NodeState, Round, Run, Submission
from nostrain.daemon.runtime import Runtime
from nostrain.errors import RemoteProtocolError, Unavailable
from nostrain.protocol.discovery import Pointer, Presence
from nostrain.protocol.event import Draft, Filter
from nostrain.units import Pubkey, UnixTime
from nostrain.wire import kinds
from nostrain.wire.control import Online
from nostrain.wire.discovery import (
    draft_advert,
    draft_handler,
    draft_inbox_list,
    draft_relay_list,
    draft_server_list,
    read_advert_untrusted,
)

log = logging.getLogger("nostrain.billboard")

PRESENCE_S: Final = (45.0, 75.0)
"""Between two signs of our presence, drawn each time: participants that start together do not speak together."""
STALE_S: Final = 180
"""Whoever was not heard for so long is not there."""
MAX_ONLINE: Final = 128
"""Participants that are told of, those that were heard last: whoever enrols a thousand keys must not make a status too long to be answered."""
POINTER_S: Final = 10.0
"""The least time between two versions of a pointer."""
REPEAT_S: Final = 24 * 3600.0
"""Lists, handler information and a pointer that did not change are published again after so long: relays forget."""


class Billboard:
    """One daemon's. `relays`: where we meet others, as we tell them; `servers`: where we upload blobs; `rng` only jitters; `present`: whether we say that we are here."""

    def __init__(
        self, runtime: Runtime, relays: Sequence[str], rng: random.Random, *, present: bool = True, servers: Sequence[str] = ()
    ) -> None:
        self._runtime, self._relays, self._rng, self._present = runtime, tuple(relays), rng, present
        self._servers = tuple(servers)
        self._heard: dict[Pubkey, tuple[UnixTime, Presence]] = {}
        self._latest: dict[int, UnixTime] = {}

    async def run(self) -> None:
        """Publish and listen until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._publish_lists)
            run = await self._followed()
            nursery.start_soon(self._listen, run)
            nursery.start_soon(self._publish_servers, run)
            if self._present:
                nursery.start_soon(self._be_present)
            if "coordinator" in self._runtime.identity.roles:
                nursery.start_soon(self._publish_handler)
                nursery.start_soon(self._point)

    def online(self) -> tuple[Online, ...]:
        """Participants of the run that were heard within STALE_S, by name, at most MAX_ONLINE; ourselves too."""
        now, run = self._runtime.ports.clock.now(), self._run
        present = [
            (key, at, said) for key, (at, said) in self._heard.items() if run is not None and now - at <= STALE_S and known(run, key)
        ]
        latest = sorted(present, key=lambda heard: (-heard[1], heard[0]))[:MAX_ONLINE]
        found = [Online(key, said.name, said.role, said.round, said.doing, max(0, now - at)) for key, at, said in latest]
        return tuple(sorted(found, key=lambda one: (one.role, one.name, one.pubkey)))

    @property
    def _run(self) -> Run | None:
        row = self._runtime.state.rows.get("run")
        return row if isinstance(row, Run) else None

    async def _followed(self) -> Run:
        while (run := self._run) is None:
            await self._runtime.changed.wait()
        return run

    async def _post(self, drafted: Callable[[UnixTime], Draft]) -> None:
        """Sign and publish. Of two events that replace each other the later has the later date, also when both are of one second."""
        ports = self._runtime.ports
        draft = drafted(ports.clock.now())
        at = self._latest[draft.kind] = max(draft.created_at, UnixTime(self._latest.get(draft.kind, -1) + 1))
        try:
            await ports.relays.publish(ports.signer.sign(drafted(at)))
        except (Unavailable, RemoteProtocolError) as error:
            self._runtime.counters["adverts_not_published"] += 1
            log.info("%s: %s", kinds.KINDS[draft.kind], error)

    async def _publish_lists(self) -> None:
        while True:
            await self._post(partial(draft_relay_list, self._relays))
            await self._post(partial(draft_inbox_list, self._relays))
            await trio.sleep(self._rng.uniform(0.9, 1.0) * REPEAT_S)

    async def _publish_servers(self, run: Run) -> None:
        """What we publish lies on the servers of our configuration and of the run."""
        servers = tuple(dict.fromkeys(server.rstrip("/") for server in (*self._servers, *run.manifest.blob_servers)))
        while servers:
            await self._post(partial(draft_server_list, servers))
            await trio.sleep(self._rng.uniform(0.9, 1.0) * REPEAT_S)

    async def _publish_handler(self) -> None:
        while True:
            await self._post(draft_handler)
            await trio.sleep(self._rng.uniform(0.9, 1.0) * REPEAT_S)

    async def _point(self) -> None:
        """A new version of the pointer whenever the run has moved on."""
        said: Pointer | None = None
        while True:
            changed, now = self._runtime.changed, pointer(await self._followed(), self._relays)
            if now != said:
                said = now
                await self._post(partial(draft_advert, now))
                await trio.sleep(POINTER_S)
                continue
            with trio.move_on_after(self._rng.uniform(0.9, 1.0) * REPEAT_S) as quiet:
                await changed.wait()
            if quiet.cancelled_caught:
                said = None

    async def _be_present(self) -> None:
        while (run := self._run) is not None and not run.finished and run.halted is None:
            state, me = self._runtime.state, self._runtime.identity
            body = Presence(run.id, me.roles[0], me.name, run.round, doing(run, state))
            await self._post(partial(draft_advert, body))
            await trio.sleep(self._rng.uniform(*PRESENCE_S))

    async def _listen(self, run: Run) -> None:
        """Whom we heard. Only participants are remembered, so that strangers cannot fill anything."""
        now = self._runtime.ports.clock.now
        wanted = Filter(kinds=(kinds.PRESENCE,), tags=(("d", (run.id,)),), since=UnixTime(now() - STALE_S))
        async with self._runtime.ports.relays.subscribe([wanted]) as events:
            async for event in events:
                try:
                    said = read_advert_untrusted(event)
                except RemoteProtocolError:
                    self._runtime.counters["adverts_refused"] += 1
                    continue
                current, at = self._run, UnixTime(min(event.created_at, now()))
                if isinstance(said, Presence) and current is not None and known(current, event.pubkey):
                    before = self._heard.get(event.pubkey)
                    if before is None or before[0] < at:
                        self._heard[event.pubkey] = at, said


def known(run: Run, key: Pubkey) -> bool:
    """Whether the key takes part."""
    return key == run.coordinator or key in run.enrolled


def doing(run: Run, state: NodeState) -> str:
    """What a participant is at, in a word."""
    for row in (state.rows.get(f"work/{run.open}"), state.rows.get(f"duty/{run.open}")):
        if isinstance(row, Submission | Duty):
            return str(row.state.value)
    round_ = state.rows.get(f"round/{run.open}")
    return phase(round_, run).value if isinstance(round_, Round) else "between rounds"


def pointer(run: Run, relays: tuple[str, ...]) -> Pointer:
    """Where the run stands, for whoever looks for one."""
    roles = [enrolment.role for _, _, enrolment in run.enrolled.values()]
    state: Literal["waiting", "running", "finished", "halted"] = "running" if run.round or run.open else "waiting"
    if run.halted is not None or run.finished:
        state = "finished" if run.halted is None else "halted"
    counted = roles.count("worker"), roles.count("validator")
    return Pointer(run.id, run.manifest.name, run.manifest.rounds, run.round, state, *counted, run.manifest.relays or relays)
