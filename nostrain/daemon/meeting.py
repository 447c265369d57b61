"""Where we meet the others: the pool of relays, and which way its connections may go."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx
import trio

from nostrain.config.runs import joined_run
from nostrain.config.schema import DaemonConfig
from nostrain.http.outbound import is_public, outbound, public_stream
from nostrain.nostr.directory import Directory
from nostrain.nostr.information import TIMEOUT_S, http_information
from nostrain.nostr.mail import GiftWrapMail, Mailbox
from nostrain.nostr.pool import RelayPool, open_pool
from nostrain.nostr.transport import websockets
from nostrain.ports.clock import Clock
from nostrain.ports.signer import Signer
from nostrain.protocol.limits import MAX_RELAYS
from nostrain.wire.relay_url import relay_urls_untrusted

INSIDE: Final = (".localhost", ".local", ".internal", ".home.arpa", ".lan")
"""Names that mean something in one network only."""

DOCUMENTS: Final = 4
"""Relay information documents that are fetched at a time."""


def told(config: DaemonConfig) -> tuple[str, ...]:
    """Those of our relays that we name to others: not the ones that nobody outside could reach, unless `private_addresses` says that others are inside."""
    urls = relay_urls_untrusted(config.relays, len(config.relays))
    return tuple(url for url in urls if config.private_addresses or _reachable(urlsplit(url).hostname or ""))[:MAX_RELAYS]


def _reachable(host: str) -> bool:
    """Whether others may reach `host`, as far as its name tells."""
    try:
        return is_public(host)
    except ValueError:
        return "." in host and not host.endswith(INSIDE)


@asynccontextmanager
async def open_relays(config: DaemonConfig, signer: Signer, data: Path) -> AsyncIterator[RelayPool]:
    """The pool of the configured relays, with its archive in `data`, and of those that the run to join is said to be found on. Raises as `open_pool`.

    Relays that others name are dialled on public addresses only, unless `private_addresses` allows all.
    """
    strangers = websockets(trio.open_tcp_stream if config.private_addresses else public_stream)
    joined = joined_run(config)
    trusted = [f"http{url.removeprefix('ws')}" for url in config.relays]
    transport = outbound(config.private_addresses, DOCUMENTS, trusted)
    async with httpx.AsyncClient(transport=transport, timeout=TIMEOUT_S, trust_env=False) as client:
        inform = http_information(client)
        archive = data / "published.sqlite"
        async with open_pool(
            config.relays, signer=signer, rng=random.Random(), inform=inform, strangers=strangers, archive=archive
        ) as pool:
            pool.meet(joined.relays if joined else ())
            yield pool


@asynccontextmanager
async def open_mail(pool: RelayPool, mailbox: Mailbox, clock: Clock) -> AsyncIterator[GiftWrapMail]:
    """Mail over the pool, brought also to the relays where its recipients read."""
    directory = Directory(pool)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(directory.run)
        yield GiftWrapMail(pool, mailbox, clock, forward=directory.forward)
        nursery.cancel_scope.cancel()
