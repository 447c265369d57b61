"""Our own blob server: the Blossom application with its limits, prices and rules, what it is called, and its retention (ADR 0050)."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack
from typing import Final

import httpx
import trio
from starlette.types import ASGIApp

from nostrain.blobs.app import blossom_app
from nostrain.blobs.download import connections
from nostrain.blobs.housekeeping import Housekeeping, Retention
from nostrain.blobs.policy import BlobLimits
from nostrain.blobs.store import LOCAL
from nostrain.blobs.tuning import Tuning
from nostrain.config.blobs import BlobsConfig
from nostrain.config.schema import DaemonConfig
from nostrain.daemon.clock import SystemClock
from nostrain.daemon.money import Office
from nostrain.daemon.uploads import RunStore, RunUploads
from nostrain.errors import ConfigError
from nostrain.http.outbound import outbound
from nostrain.http.paywall import paywall_app
from nostrain.http.rates import RateLimit, Rates
from nostrain.http.server import serve
from nostrain.units import Pubkey

log = logging.getLogger("nostrain.daemon")

_DAY_S: Final = 24 * 3600


def rules(config: DaemonConfig) -> Retention:
    """What may be removed. What belongs to the run that we follow is the node's own, and goes when the machines say so (ADR 0034)."""
    said = config.blobs.retention
    keep = {Pubkey(key) for key in said.keep} | ({LOCAL} if config.in_a_run else set())
    return Retention(said.idle_days * _DAY_S, said.max_bytes, said.grace_hours * 3600, frozenset(keep))


def application(
    config: BlobsConfig,
    store: RunStore,
    policy: RunUploads,
    clock: SystemClock,
    office: Office | None,
    mirror: httpx.AsyncClient,
    keeper: Housekeeping,
) -> ASGIApp:
    """Blobs, and tickets where they are sold, behind the limits of what one peer may ask for."""
    app = blossom_app(
        store,
        policy,
        clock,
        limits=BlobLimits(config.max_bytes, config.quota),
        public_url=public_url(config, office),
        tolls=office and office.tolls,
        housekeeping=keeper,
        mirror=mirror,
    )
    if office is not None and office.paywall is not None:
        app = paywall_app(office.paywall, app)
    return RateLimit(app, Rates(config.rates.address, config.rates.token, config.rates.proxy))


def public_url(config: BlobsConfig, office: Office | None) -> str | None:
    """What the world calls our server, as far as the configuration says: tickets are sold under the first of `blobs.servers`, which is then ours."""
    sold = office is not None and office.paywall is not None and bool(config.servers)
    return config.url or (config.servers[0] if sold else None)


async def open_server(
    stack: AsyncExitStack, config: DaemonConfig, store: RunStore, policy: RunUploads, clock: SystemClock, office: Office | None
) -> str:
    """Serve blobs and tickets, and keep the store to its rules; the URL it is bound to. Raises ConfigError."""
    keeper = Housekeeping(store, clock, rules(config))
    mirror = connections(outbound(config.private_addresses, Tuning().connections), Tuning())
    app = application(config.blobs, store, policy, clock, office, await stack.enter_async_context(mirror), keeper)
    nursery = await stack.enter_async_context(trio.open_nursery())
    stack.callback(nursery.cancel_scope.cancel)
    try:
        bound: str = await nursery.start(serve, app, config.blobs.bind)
    except ConfigError as error:
        raise ConfigError("blobs.bind", error.value, error.reason, f"{error.fix[0].upper()}{error.fix[1:]}") from None
    nursery.start_soon(keeper.run)
    log.info("blobs are served on %s", bound)
    return bound


def advertised(servers: tuple[str, ...], bound: str | None, name: str = "") -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The servers that we name to others, and which of them is our own: under its `name` or the very address it is bound to.

    When servers are named and ours is not among them by either, it is behind one of their names, or not meant for others.
    """
    if bound is None:
        return servers, ()
    if not servers:
        return (name or bound,), (name or bound,)
    return servers, tuple(server for server in servers if server.rstrip("/") in (bound, name.rstrip("/")))
