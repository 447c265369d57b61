"""What a node needs to pay and be paid, from its [lightning] table: the Lightning client, the ticket sale, the ticket buyer."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack
from typing import Final, NamedTuple

import httpx
import trio

from nostrain.config.blobs import PriceConfig, PricesConfig
from nostrain.config.schema import DaemonConfig
from nostrain.daemon.clock import OsEntropy, SystemClock
from nostrain.daemon.policies import channel_policy, withdraw_policy
from nostrain.daemon.tickets import NodeInvoices, NodeTickets, RunTolls
from nostrain.daemon.uploads import RunUploads
from nostrain.errors import Unavailable
from nostrain.http.first_use import SqliteFirstUse
from nostrain.http.l402_client import TicketClient
from nostrain.http.l402_wallet import FileWallet, TollFiles
from nostrain.http.outbound import outbound
from nostrain.http.paywall import Paywall
from nostrain.http.ticket_gate import TicketGate
from nostrain.http.toll_client import TollPurse
from nostrain.http.tollgate import Price, Tollgate
from nostrain.keys.signer import NostrSigner
from nostrain.keys.store import RootSecret
from nostrain.keys.tickets import DerivedTicketKeys
from nostrain.lightning.client import ClnLightning
from nostrain.lightning.rpc import Rpc
from nostrain.ports.tolls import Route, Tolls
from nostrain.protocol.manifest import SAT
from nostrain.units import Msat

TICKET_CONNECTIONS: Final = 4
"""One purchase at a time for each round, and few rounds are open at once."""

log = logging.getLogger("nostrain.daemon")

CHECK_S: Final = 5.0
"""How long the start may wait for lightningd: one that is busy is looked at again with every block."""


class Office(NamedTuple):
    """What a server collects with: the endpoint that sells tickets, and what stands before its routes."""

    paywall: Paywall | None
    tolls: Tolls


class Money:
    """Everything is None or left out in a daemon without a Lightning node: it takes part in unpaid runs only."""

    def __init__(self, config: DaemonConfig, root: RootSecret, clock: SystemClock, rpc: Rpc | None) -> None:
        self._config, self._root, self._clock = config, root, clock
        lightning = config.lightning
        self.lightning = (
            ClnLightning(
                rpc,
                network=lightning.network,
                hold_poll_s=lightning.poll_s,
                coins=channel_policy(config) is not None or withdraw_policy(config) is not None,
            )
            if rpc is not None
            else None
        )

    async def check(self) -> None:
        """Look at the node once. Raises ConfigError when it is on another network; one that does not answer is for later."""
        if self.lightning is None:
            return
        with trio.move_on_after(CHECK_S):
            try:
                await self.lightning.info()
            except Unavailable as error:
                log.warning("lightning: %s", error)

    @property
    def escrows(self) -> bool:
        """Whether this daemon pays by escrow or is paid so, and needs the mail for it; a validator's node only takes its share of the fees."""
        return self.lightning is not None and bool({"coordinator", "worker"} & set(self._config.roles))

    def open_office(self, stack: AsyncExitStack, book: NodeTickets, uploads: RunUploads) -> Office | None:
        """What collects for our server, in a daemon with a Lightning node: tickets if it coordinates, tolls by its price list. Closed with
        `stack`.
        """
        if self.lightning is None:
            return None
        invoices, keys, entropy = NodeInvoices(self.lightning, OsEntropy()), DerivedTicketKeys(self._root), OsEntropy()
        uses = SqliteFirstUse(self._config.data_path / "payments.sqlite", self._clock)
        stack.callback(uses.close)
        prices = Tollgate(price_list(self._config.blobs.prices), invoices, keys, self._clock, entropy, uses)
        if "coordinator" not in self._config.roles:
            return Office(None, RunTolls(uploads, None, prices))
        public = self._config.blobs.servers[0] if self._config.blobs.servers else None
        paywall = Paywall(book, invoices, keys, self._clock, entropy, public_url=public)
        return Office(paywall, RunTolls(uploads, TicketGate(paywall, book, keys, self._clock, uses), prices))

    async def ticket_buyer(self, stack: AsyncExitStack, signer: NostrSigner) -> TicketClient | None:
        """The buyer of our tickets; its purchases lie in `tickets/` of the data folder. Its connections are closed with `stack`."""
        if self.lightning is None or "worker" not in self._config.roles:
            return None
        transport = outbound(self._config.private_addresses, TICKET_CONNECTIONS, self._config.blobs.servers)
        http = await stack.enter_async_context(httpx.AsyncClient(transport=transport, trust_env=False))
        return TicketClient(http, signer, self._clock, self.lightning, FileWallet(self._config.data_path / "tickets"))

    def purse(self) -> TollPurse | None:
        """What pays other servers for downloads and uploads, up to `blobs.pay_sat`; its purchases lie in `tolls/` of the data folder."""
        ceiling = self._config.blobs.pay_sat * SAT
        if self.lightning is None or ceiling == 0:
            return None
        return TollPurse(self.lightning, TollFiles(self._config.data_path / "tolls"), Msat(ceiling))


def price_list(prices: PricesConfig) -> dict[Route, Price]:
    """The configured prices, in msat."""
    routes: dict[Route, PriceConfig] = {"upload": prices.upload, "download": prices.download, "list": PriceConfig(prices.list_sat)}
    return {route: Price(price.sat * SAT, price.sat_per_mb * SAT) for route, price in routes.items()}
