"""Relays that others named: a run's own (we read and publish there), and those where a recipient reads (it is brought its mail).

Few of both, each behind the guard that the pool was given for strangers' addresses. No quorum depends on them, and none of ours is dialled twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

import trio

from nostrain.errors import RemoteProtocolError
from nostrain.nostr.link import Link
from nostrain.protocol.limits import MAX_RELAYS
from nostrain.wire.relay_url import relay_url_untrusted, relay_urls_untrusted

MAX_GUESTS: Final = 16
"""Relays that only get mail; the one that was longest without any makes room."""


class Strangers:
    """One pool's. `make` builds a link to a URL, for a guest or not; `ours` are those that the configuration names."""

    def __init__(self, make: Callable[[str, bool], Link], ours: Iterable[Link]) -> None:
        self._make = make
        self._ours = {_spelled(link.url) for link in ours}
        self._joined: set[str] = set()
        self._guests: dict[str, tuple[Link, trio.CancelScope]] = {}

    def join(self, urls: Sequence[str], nursery: trio.Nursery) -> list[Link]:
        """Links to those of `urls` that are new, running; MAX_RELAYS of them in all calls together."""
        links = []
        for url in relay_urls_untrusted(urls, MAX_RELAYS):
            if url not in self._ours | self._joined and len(self._joined) < MAX_RELAYS:
                self._joined.add(url)
                links.append(self._make(url, False))
                nursery.start_soon(links[-1].run)
        return links

    def guests(self, urls: Sequence[str], nursery: trio.Nursery) -> list[Link]:
        """Links to those of `urls` that we do not publish on anyway, running."""
        links = []
        for url in relay_urls_untrusted(urls, MAX_RELAYS):
            if url in self._ours | self._joined:
                continue
            found = self._guests.pop(url, None)
            if found is None:
                found = self._make(url, True), trio.CancelScope()
                nursery.start_soon(_host, *found)
            self._guests[url] = found
            links.append(found[0])
            if len(self._guests) > MAX_GUESTS:
                _, scope = self._guests.pop(next(iter(self._guests)))
                scope.cancel()
        return links


async def _host(link: Link, scope: trio.CancelScope) -> None:
    with scope:
        await link.run()


def _spelled(url: str) -> str:
    """Ours may have what we take from nobody else."""
    try:
        return relay_url_untrusted(url)
    except RemoteProtocolError:
        return url
