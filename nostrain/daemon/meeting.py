"""Where we meet the others: the pool of relays, and which way its connections may go."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import httpx

from nostrain.config.schema import DaemonConfig
from nostrain.http.outbound import outbound
from nostrain.nostr.information import TIMEOUT_S, http_information
from nostrain.nostr.pool import RelayPool, open_pool
from nostrain.ports.signer import Signer

DOCUMENTS: Final = 4
"""Relay information documents that are fetched at a time."""


@asynccontextmanager
async def open_relays(config: DaemonConfig, signer: Signer, data: Path) -> AsyncIterator[RelayPool]:
    """The pool of the configured relays, with its archive in `data`. Raises as `open_pool`."""
    trusted = [f"http{url.removeprefix('ws')}" for url in config.relays]
    transport = outbound(config.private_addresses, DOCUMENTS, trusted)
    async with httpx.AsyncClient(transport=transport, timeout=TIMEOUT_S, trust_env=False) as client:
        inform = http_information(client)
        archive = data / "published.sqlite"
        async with open_pool(config.relays, signer=signer, rng=random.Random(), inform=inform, archive=archive) as pool:
            yield pool
