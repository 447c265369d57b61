"""The subscriptions that are open on one connection: never more at a time than the relay allows (NIP-11), none larger than it answers. No I/O.

What finds no room waits until another subscription ends. Those that page are let through one at a time if need be; of those that live, all
but the last place may be taken, so that history is read whatever happens.

No subscription id is used twice on a connection. NIP-01 lets a `REQ` replace another of its id, and an id be used again after `CLOSE`; khatru
keeps both and sends everything twice, and may take a `CLOSE` after the `REQ` that followed it. It also tells an answer from a late one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from nostrain.nostr import messages
from nostrain.nostr.vigil import Vigil
from nostrain.nostr.watch import Member
from nostrain.protocol.event import Filter

PAGE_SUFFIX: Final = ":page"
PROBE_SUFFIX: Final = ":probe"
STOCK: Final = "stock"
"""Names of subscriptions: `<watch>` is live, `<watch>:page` walks back, `<watch>:probe` asks for a sign of life, `stock` for events by id."""

AGAIN: Final = "#"
"""`<name>#<n>` is the id of a subscription that is asked for the n-th time, from the second on."""


class Queries:
    """One connection's. `say` queues a message to the relay, `vigil` waits for the answers."""

    def __init__(self, member: Member, vigil: Vigil, say: Callable[[str], None]) -> None:
        self._member, self._vigil, self._say = member, vigil, say
        self._open: dict[str, str] = {}
        self._times: dict[str, int] = {}
        self._waiting: dict[str, Filter] = {}

    def named(self, subscription: str) -> tuple[str, bool]:
        """The name that a subscription id stands for, and whether it is what was asked last under that name."""
        name = subscription.partition(AGAIN)[0]
        return name, self._open.get(name) == subscription

    def ask(self, name: str, wanted: Filter) -> None:
        """Open a subscription, or ask it anew; later, if there is no room."""
        if name in self._open:
            self._say(messages.close_message(self._open[name]))
        if name in self._open or self._room(name):
            self._send(name, wanted)
        else:
            self._waiting[name] = wanted
            self._member.once("full", f"it allows {self._member.limits.max_subscriptions} subscriptions at a time: others wait")

    def end(self, name: str) -> None:
        """Close a subscription, or give up waiting for it."""
        if name in self._open:
            self._say(messages.close_message(self._open[name]))
        self.ended(name)

    def forget(self, name: str) -> None:
        """As `end`, of one that will never be asked again."""
        self.end(name)
        self._times.pop(name, None)

    def ended(self, name: str) -> None:
        """The relay closed it, or we did: whoever waits for its place is next."""
        self._vigil.answered(name)
        self._open.pop(name, None)
        self._waiting.pop(name, None)
        for waiting in list(self._waiting):
            if self._room(waiting):
                self._send(waiting, self._waiting.pop(waiting))

    def _room(self, name: str) -> bool:
        allowed = self._member.limits.subscriptions
        if allowed is None:
            return True
        living = sum(_lives(other) for other in self._open)
        return len(self._open) < allowed and (not _lives(name) or living < allowed - 1)

    def _send(self, name: str, wanted: Filter) -> None:
        times = self._times[name] = self._times.get(name, 0) + 1
        subscription = self._open[name] = name if times == 1 else f"{name}{AGAIN}{times}"
        self._vigil.asked(name, trio.current_time())
        self._say(messages.req_message(subscription, [self._member.limits.narrowed(wanted)]))


def _lives(name: str) -> bool:
    return ":" not in name and name != STOCK
