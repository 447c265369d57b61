"""Finding runs from relays alone: manifests, pointers and the latest rounds, read as a stranger. Bounded, whatever the relays send."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
import trio

from nostrain.core.bounds import manifest_problem
from nostrain.errors import RemoteProtocolError, Unavailable
from nostrain.http.outbound import public_stream
from nostrain.nostr.pool import RelayPool, open_pool
from nostrain.nostr.transport import Connect, open_websocket, websockets
from nostrain.protocol.discovery import Pointer, Presence, RunAddress
from nostrain.protocol.event import Event, Filter
from nostrain.protocol.limits import MAX_TOKENS_PER_S
from nostrain.protocol.manifest import RunManifest
from nostrain.protocol.messages import Announcement, Enrolment, Message, Result
from nostrain.units import EventId, Pubkey, UnixTime
from nostrain.wire import kinds
from nostrain.wire.discovery import read_advert_untrusted
from nostrain.wire.messages import read_message_untrusted

QUIET_S: Final = 2.0
"""Relays that send nothing for so long have sent what they had."""
CONNECT_S: Final = 8.0
LONGEST_S: Final = 30.0
"""How long one reading may take, however much there is."""
MAX_READ: Final = 2_000
"""Events that one reading takes."""
PAGE: Final = 500
MAX_RUNS: Final = 100
MAX_OF_ONE: Final = 10
"""Runs that are shown of one relay, and of one coordinator: the newest."""
CLOCKS_S: Final = 600
"""Clocks may differ by so much."""
PUBLIC: Final = websockets(public_stream)
"""Dials relays on public addresses only."""


class FoundRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run as relays show it. `active` is the date of the latest sign of life, its coordinator's word; `pointer` where the run
    stands; `tokens_per_s` what the workers together say that they train; `found_on` the relays that show it, or that were asked for it."""

    id: EventId
    coordinator: Pubkey
    manifest: RunManifest
    created_at: UnixTime
    active: UnixTime
    round: int
    pointer: Pointer | None = None
    workers: tuple[str, ...] = ()
    validators: tuple[str, ...] = ()
    tokens_per_s: int = 0
    online: tuple[Presence, ...] = ()
    found_on: tuple[str, ...] = ()


async def find_runs(relays: Sequence[str], now: UnixTime, *, connect: Connect = open_websocket) -> list[FoundRun]:
    """The runs that the relays show, the most recently active first; what is dated in the future comes last.

    Each relay is read by itself and within its own bounds: one that floods us hides nothing of what the others have.
    `relays` are URLs that `wire.relay_url` lets pass; `connect` dials one. Raises Unavailable when none of them can be reached.
    """
    by_relay: dict[str, list[Event]] = {}
    async with trio.open_nursery() as nursery:
        for url in relays:
            nursery.start_soon(_search, url, connect, by_relay)
    if not by_relay:
        raise Unavailable(f"{', '.join(relays)}: not reached")
    of_run: dict[str | None, list[Event]] = {}  # every event is looked at for one run only, however many runs there are
    for event in {event.id: event for events in by_relay.values() for event in events}.values():
        of_run.setdefault(event.tag("d"), []).append(event)
    manifests: dict[EventId, Message] = {}
    shown: dict[EventId, list[str]] = {}
    for url, events in by_relay.items():
        for found in chosen(understood(events)).values():
            manifests[found.id] = found
            shown.setdefault(found.id, []).append(url)
    runs = [described(message, of_run.get(message.id, []), shown[message.id]) for message in manifests.values()]
    return sorted(runs, key=lambda run: (-run.active if run.active <= now + CLOCKS_S else 0, run.id))


async def _search(url: str, connect: Connect, by_relay: dict[str, list[Event]]) -> None:
    async with open_pool([url], connect=connect) as pool:
        tagged = (("t", ("nostrain",)),)
        events = await read(pool, [Filter(kinds=(kind,), tags=tagged, limit=PAGE) for kind in (kinds.MANIFEST, kinds.POINTER)])
        manifests = chosen(understood(events))
        if manifests:
            events += await read(pool, [Filter(kinds=(kinds.RESULT, kinds.ANNOUNCEMENT), tags=(("d", tuple(manifests)),), limit=PAGE)])
        if events or pool.connected:
            by_relay[url] = events


async def look_at(
    relays: Sequence[str],
    address: RunAddress,
    listen_s: float,
    *,
    connect: Connect = open_websocket,
    strangers: Connect = PUBLIC,
) -> FoundRun | None:
    """One run with its participants, and who is heard within `listen_s`. None: no relay has its manifest.

    Asked are `relays`, which `connect` dials, and those that the address names: a stranger may have written it, `strangers` dials them. What
    only the coordinator says is read by itself, so that nobody can drown it.
    """
    urls, ours, of_run = tuple(dict.fromkeys((*relays, *address.relays))), frozenset(relays), (("d", (address.run,)),)
    async with open_pool(urls, connect=lambda url: (connect if url in ours else strangers)(url)) as pool:
        events = await read(pool, [Filter(ids=(address.run,))], most=1)
        manifests = [message for message in understood(events) if isinstance(message.body, RunManifest)]
        if not manifests:
            return None
        own = (kinds.ANNOUNCEMENT, kinds.RESULT, kinds.POINTER)
        events += await read(pool, [Filter(kinds=(kind,), authors=(manifests[0].author,), tags=of_run, limit=PAGE) for kind in own])
        events += await read(pool, [Filter(kinds=(kinds.ENROLMENT,), tags=of_run, limit=PAGE)])
        events += await read(pool, [Filter(kinds=(kinds.PRESENCE,), tags=of_run)], quiet_s=listen_s, longest_s=listen_s)
    return described(manifests[0], events, urls)


async def read(
    pool: RelayPool, filters: Sequence[Filter], *, quiet_s: float = QUIET_S, longest_s: float = LONGEST_S, most: int | None = None
) -> list[Event]:
    """What the relays send for `filters`, verified, until they are quiet; at most `most` events (MAX_READ), for at most `longest_s`."""
    found: list[Event] = []
    with trio.move_on_after(longest_s):
        async with pool.subscribe(filters) as events:
            while len(found) < (MAX_READ if most is None else most):
                with trio.move_on_after(quiet_s if found or pool.connected else CONNECT_S) as patience:
                    found.append(await events.receive())
                if patience.cancelled_caught:
                    break
    return found


def understood(events: Iterable[Event]) -> list[Message]:
    """Those that say something; whatever else relays send is left out."""
    messages = []
    for event in events:
        try:
            messages.append(read_message_untrusted(event))
        except RemoteProtocolError:
            continue
    return messages


def adverts(events: Iterable[Event]) -> list[tuple[Event, Pointer | Presence]]:
    """Pointers and presence among them."""
    found = []
    for event in events:
        try:
            found.append((event, read_advert_untrusted(event)))
        except RemoteProtocolError:
            continue
    return found


def chosen(messages: Iterable[Message]) -> dict[EventId, Message]:
    """The newest manifests that can be, a few of each coordinator."""
    manifests = [message for message in messages if isinstance(message.body, RunManifest) and manifest_problem(message.body) is None]
    of_author: Counter[Pubkey] = Counter()
    found: dict[EventId, Message] = {}
    for message in sorted(manifests, key=lambda message: (-message.created_at, message.id)):
        of_author[message.author] += 1
        if of_author[message.author] <= MAX_OF_ONE and len(found) < MAX_RUNS:
            found[message.id] = message
    return found


def described(manifest: Message, events: Sequence[Event], relays: Sequence[str]) -> FoundRun:
    """What `events` say of the run. Only its coordinator says where it stands."""
    body = manifest.body
    assert isinstance(body, RunManifest)
    own = [event for event in events if event.pubkey == manifest.author]
    said = [message for message in understood(own) if isinstance(message.body, Announcement | Result) and message.body.run == manifest.id]
    pointers = [(event, one) for event, one in adverts(own) if isinstance(one, Pointer) and one.run == manifest.id]
    _, pointer = max(pointers, key=lambda item: item[0].created_at, default=(None, None))
    closed = [message.body.round for message in said if isinstance(message.body, Result)]
    enrolled = [message for message in understood(events) if isinstance(message.body, Enrolment) and message.body.run == manifest.id]
    names = {(m.author, m.body.role): m.body.name for m in enrolled if isinstance(m.body, Enrolment)}
    speeds = {m.author: m.body.tokens_per_s for m in sorted(enrolled, key=lambda m: m.created_at) if isinstance(m.body, Enrolment)}
    keys = {author for author, _ in names} | {manifest.author}
    present = {event.pubkey: one for event, one in adverts(events) if isinstance(one, Presence) and event.pubkey in keys}
    dates = [manifest.created_at, *(message.created_at for message in said), *(event.created_at for event, _ in pointers)]
    return FoundRun(
        id=manifest.id,
        coordinator=manifest.author,
        manifest=body,
        created_at=manifest.created_at,
        active=max(dates),
        round=max([pointer.round if pointer else 0, *closed]),
        pointer=pointer,
        workers=tuple(sorted(name for (_, role), name in names.items() if role == "worker")),
        validators=tuple(sorted(name for (_, role), name in names.items() if role == "validator")),
        tokens_per_s=sum(min(max(speed, 0), MAX_TOKENS_PER_S) for speed in speeds.values()),
        found_on=tuple(relays),
        online=tuple(sorted(present.values(), key=lambda one: (one.role, one.name))),
    )
