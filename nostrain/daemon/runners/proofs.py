"""Evidence and disputes: `audit` says what signed events show, the relays have the events that we lack."""

from __future__ import annotations

from typing import Final

import trio

from nostrain.audit.dispute import check_dispute, find_dispute
from nostrain.core.effects import CheckDispute, Failed, Outcome, Prove, Proved, Unheard
from nostrain.daemon.ports import Ports
from nostrain.errors import RemoteProtocolError
from nostrain.protocol.event import Event, Filter
from nostrain.protocol.messages import Dispute
from nostrain.units import EventId

GATHER_S: Final = 10.0
"""How long the relays have to bring the evidence of a dispute: it was there before the dispute."""


async def run(effect: Prove | CheckDispute, ports: Ports) -> Outcome:
    """What cannot be shown is `Failed`; evidence that is not to be had is `Unheard`. Raises Unavailable when no relay answers."""
    if isinstance(effect, Prove):
        return await ports.offload(lambda: proved(effect))
    known = {event.id: event for event in effect.events}
    missing = tuple(event_id for event_id in effect.dispute.evidence if event_id not in known)
    if missing:
        known |= await gathered(missing, ports)
    if len(known) < len(effect.dispute.evidence):
        return Unheard()
    return await ports.offload(lambda: checked(effect.dispute, tuple(known.values())))


def proved(effect: Prove) -> Outcome:
    """The first dispute that the evidence supports."""
    found = find_dispute(effect.run, effect.events, effect.accused)
    if found is None:
        return Failed("the events show nothing of the kind")
    dispute, shown = found
    return Proved(dispute, shown.text, shown.about)


def checked(dispute: Dispute, events: tuple[Event, ...]) -> Outcome:
    """Whether a dispute shows what it claims."""
    try:
        shown = check_dispute(dispute, events)
    except RemoteProtocolError as error:
        return Failed(str(error))
    return Proved(dispute, shown.text, shown.about)


async def gathered(ids: tuple[EventId, ...], ports: Ports) -> dict[EventId, Event]:
    """Those of the events that the relays bring in time."""
    found: dict[EventId, Event] = {}
    with trio.move_on_after(GATHER_S):
        async with ports.relays.subscribe([Filter(ids=ids)]) as events:
            async for event in events:
                found[event.id] = event
                if len(found) == len(ids):
                    break
    return found
