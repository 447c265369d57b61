"""What flows into a node by itself: the run's events from the relays, private messages, hold invoices, our Lightning node."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence

import trio

from nostrain.core.inputs import HoldChanged
from nostrain.core.rounds.named import Wanted, wanted
from nostrain.core.rows import Run
from nostrain.daemon.income_feed import IncomeFeed
from nostrain.daemon.node_feed import node_feed
from nostrain.daemon.runtime import Runtime
from nostrain.errors import Unavailable
from nostrain.ports.lightning import Lightning
from nostrain.protocol.event import Filter
from nostrain.wire import kinds
from nostrain.wire.messages import round_key

log = logging.getLogger("nostrain.feeds")

RETRY_S = 5.0
ASK_S = 10.0
"""What is merely out of order has come by then."""


async def run_feeds(runtime: Runtime) -> None:
    """Run every feed that the ports allow, until cancelled."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(relay_feed, runtime)
        nursery.start_soon(missing_feed, runtime)
        if runtime.ports.mail is not None:
            nursery.start_soon(mail_feed, runtime)
        if runtime.ports.lightning is not None:
            nursery.start_soon(node_feed, runtime, runtime.ports.lightning)
            if {"coordinator", "validator"} & set(runtime.identity.roles):
                nursery.start_soon(IncomeFeed(runtime, runtime.ports.lightning).run)
            if "worker" in runtime.identity.roles:  # nobody else is paid by hold invoices, or has a rune that allows to list them
                nursery.start_soon(hold_feed, runtime, runtime.ports.lightning)


async def relay_feed(runtime: Runtime) -> None:
    """Manifests until we follow a run; then everything that is said in it."""
    me = runtime.identity
    author = me.pubkey if "coordinator" in me.roles else me.join_coordinator
    manifests = Filter(
        ids=() if me.join_run is None else (me.join_run,),
        authors=() if author is None else (author,),
        kinds=(kinds.MANIFEST,),
        tags=(("t", ("nostrain",)),),
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow, runtime, [manifests])
        while (run := runtime.state.rows.get("run")) is None:
            await runtime.changed.wait()
        nursery.cancel_scope.cancel()
    assert isinstance(run, Run)
    runtime.ports.relays.meet(run.manifest.relays)
    await follow(runtime, [Filter(kinds=kinds.PUBLIC, tags=(("d", (run.id,)),))])


async def missing_feed(runtime: Runtime) -> None:
    """What the coordinator's statements name and we do not have, because it was never shown to us or we had no room for it: asked for by id; and
    the rounds that it has closed, and we have not, one after the other."""
    asked, scope = Wanted(), trio.CancelScope()
    async with trio.open_nursery() as nursery:
        while True:
            changed, missing = runtime.changed, wanted(runtime.state)
            if missing != asked:
                scope.cancel()
                asked, scope = missing, trio.CancelScope()
                nursery.start_soon(ask, runtime, missing, scope)
            await changed.wait()
            await trio.sleep(ASK_S)


async def ask(runtime: Runtime, missing: Wanted, scope: trio.CancelScope) -> None:
    """Hand in what is missing, whenever it comes, until `scope` is cancelled."""
    filters = [Filter(ids=missing.ids)] if missing.ids else []
    if missing.thermometers:
        filters.append(Filter(kinds=(kinds.ORACLE_ANNOUNCEMENTS,), tags=(("e", missing.thermometers),)))
    run = runtime.state.rows.get("run")
    if missing.rounds and isinstance(run, Run):
        filters.append(Filter(kinds=kinds.PUBLIC, tags=(("r", tuple(round_key(run.id, number) for number in missing.rounds)),)))
    with scope:
        if filters:
            counts = len(missing.ids), len(missing.thermometers), len(missing.rounds)
            log.info("asking for %d events that are missing, the thermometers of %d rounds, and all that was said in %d rounds", *counts)
            await follow(runtime, filters)


async def follow(runtime: Runtime, filters: Sequence[Filter]) -> None:
    """Hand every event that matches one of them to the node."""
    async with runtime.ports.relays.subscribe(filters) as events:
        async for event in events:
            await runtime.receive(event)


async def mail_feed(runtime: Runtime) -> None:
    """Private messages."""
    assert runtime.ports.mail is not None
    async with runtime.ports.mail.inbox() as events:
        async for event in events:
            await runtime.receive(event)


async def hold_feed(runtime: Runtime, lightning: Lightning) -> None:
    """Every state of our hold invoices, again from the start after the node was away."""

    async def watch() -> None:
        async with lightning.holds() as updates:
            async for update in updates:
                changed = HoldChanged(update.payment_hash, update.state.value, update.amount_msat, update.cltv_expiry)
                await runtime.put(changed)

    await forever(watch, "hold invoices")


async def forever(watch: Callable[[], Awaitable[None]], what: str) -> None:
    """Watch again whenever the other side was not there."""
    while True:
        try:
            await watch()
        except Unavailable as error:
            log.warning("%s: %s; again in %.0f s", what, error, RETRY_S)
        await trio.sleep(RETRY_S)
