"""Two real nodes, alice who pays and bob who holds, each with the plugin; and what it takes to see who has what."""

from __future__ import annotations

import os
import secrets
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trio

from nostrain.devnet.regtest.lightningd import Lightningd, Settings
from nostrain.devnet.regtest.network import RegtestNetwork, running
from nostrain.devnet.regtest.plugins import write_hold_plugin
from nostrain.errors import Unavailable
from nostrain.holdplugin.plugin import FIRST, FOLDER, STANDBY
from nostrain.lightning.rpc import ClnError
from nostrain.units import Msat

FUNDS = {"alice": Msat(2_000_000_000), "bob": Msat(500_000_000)}
AMOUNT = 10_000_000
CLTV = 80
WAIT_S = 30.0
POLL_S = 0.02

REASON = "SKIPPED REGTEST: the other ways to kill and to wait take 20 s each on real nodes; NOSTRAIN_E2E_ALL=1 runs them"
slow = pytest.mark.skipif(os.environ.get("NOSTRAIN_E2E_ALL") != "1", reason=REASON)
"""For tests that are not in every run."""

T = TypeVar("T")


@dataclass(frozen=True)
class Bill:
    """A hold invoice of bob's."""

    preimage: str
    payment_hash: str
    bolt11: str = ""
    secret: str = ""
    amount_msat: int = AMOUNT

    @classmethod
    def draw(cls) -> Bill:
        """A preimage; the invoice is still to be made."""
        preimage = secrets.token_bytes(32)
        return cls(preimage.hex(), sha256(preimage).hexdigest())


class World:
    """The network, and short ways to do things in it."""

    def __init__(self, network: RegtestNetwork) -> None:
        self.network = network
        self.alice, self.bob = network.nodes["alice"], network.nodes["bob"]

    async def bill(self, amount_msat: int = AMOUNT, **options: object) -> Bill:
        """A new hold invoice at bob's."""
        bill = Bill.draw()
        made = await self.bob.ask("holdinvoice", payment_hash=bill.payment_hash, amount=amount_msat, **options)
        return await self.read(bill, made["bolt11"])

    async def read(self, bill: Bill, bolt11: str) -> Bill:
        """With what its invoice says."""
        decoded = await self.bob.ask("decode", string=bolt11)
        return replace(bill, bolt11=bolt11, secret=decoded["payment_secret"], amount_msat=decoded["amount_msat"])

    async def send(self, bill: Bill, *, partid: int = 0, share: int | None = None, delay: int = CLTV, **other: object) -> None:
        """One part of a payment on the direct channel, sent and not waited for."""
        amount = bill.amount_msat if share is None else share
        channel = (await self.alice.channels())[0]["short_channel_id"]
        route = [{"id": self.bob.id, "channel": channel, "delay": delay, "amount_msat": amount}]
        terms: dict[str, object] = {"payment_hash": bill.payment_hash, "payment_secret": bill.secret, "amount_msat": bill.amount_msat}
        terms |= {"partid": partid, "groupid": 1} if partid else {}
        await self.alice.ask("sendpay", route=route, **(terms | other))

    async def paid(self, bill: Bill, partid: int = 0) -> str:
        """The preimage with which alice's payment ends. Raises ClnError when it fails."""
        terms: dict[str, object] = {"payment_hash": bill.payment_hash, "timeout": int(WAIT_S)} | (
            {"partid": partid, "groupid": 1} if partid else {}
        )
        with trio.fail_after(WAIT_S):
            return str((await self.alice.ask("waitsendpay", **terms))["payment_preimage"])

    async def refused(self, bill: Bill, partid: int = 0) -> str:
        """The name of the failure with which alice's payment ends."""
        try:
            preimage = await self.paid(bill, partid)
        except ClnError as error:
            return error.message
        raise AssertionError(f"it was paid: {preimage}")

    async def hold(self, bill: Bill) -> Mapping[str, Any]:
        """The invoice as bob's plugin lists it; waits while the process with the methods is being restarted."""
        return (await self.answered(self.bob, "listholdinvoices", payment_hash=bill.payment_hash))["holdinvoices"][0]

    async def held(self, bill: Bill, state: str = "accepted", htlcs: int = 1) -> None:
        """Wait until the invoice is in that state, with so many HTLCs in it."""

        async def there() -> bool:
            hold = await self.hold(bill)
            return hold["state"] == state and sum(htlc["state"] == state for htlc in hold["htlcs"]) == htlcs

        await until(there)

    async def settle(self, bill: Bill) -> None:
        """Settle, as a daemon does: again while the plugin is not there or does not have the HTLC yet."""
        await self.answered(self.bob, "settleholdinvoice", preimage=bill.preimage)

    async def answered(self, node: Lightningd, method: str, **params: object) -> Any:
        """A method's result, asked for until there is one."""

        async def ask() -> list[Any] | None:
            try:
                return [await node.ask(method, **params)]
            except (ClnError, Unavailable):
                return None

        return (await until(ask))[0]

    async def in_hand(self, bill: Bill, name: str) -> None:
        """Wait until every HTLC of the hash waits in bob's plugin `name`."""

        async def there() -> bool:
            htlcs = [
                htlc for channel in await self.bob.channels() for htlc in channel["htlcs"] if htlc["payment_hash"] == bill.payment_hash
            ]
            return bool(htlcs) and all(str(htlc.get("status", "")).endswith(f"plugin {name}") for htlc in htlcs)

        await until(there)

    async def spent(self) -> int:
        """What alice has less than at the start, once no HTLC is left."""

        async def settled() -> bool:
            return not [htlc for node in (self.alice, self.bob) for channel in await node.channels() for htlc in channel["htlcs"]]

        await until(settled)
        return FUNDS["alice"] - (await self.network.balances())["alice"].balance_msat

    def pid(self, name: str) -> int | None:
        """The process of bob's that runs that plugin now."""
        for folder in Path("/proc").iterdir():
            try:
                command = (folder / "cmdline").read_bytes().split(b"\0") if folder.name.isdigit() else []
                parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1]) if command else 0
                of_bob = command and str(self.bob.folder).encode() in Path(f"/proc/{parent}/cmdline").read_bytes()
            except OSError:
                continue
            if of_bob and any(part.endswith(f"/{name}".encode()) for part in command):
                return int(folder.name)
        return None

    async def kill(self, name: str) -> int:
        """kill -9 of bob's plugin `name`; the pid that it had."""
        pid = await until(lambda: ready(self.pid(name)))
        os.kill(pid, signal.SIGKILL)
        return pid

    async def back(self, name: str, old: int) -> None:
        """Wait until another process runs as that plugin and lightningd counts it as active."""

        async def there() -> bool:
            if self.pid(name) in (None, old):
                return False
            plugins = (await self.bob.ask("plugin", subcommand="list"))["plugins"]
            return any(plugin["name"].endswith(f"/{name}") and plugin["active"] for plugin in plugins)

        await until(there)

    async def both(self) -> None:
        """Wait until both of bob's processes run."""
        for name in (FIRST, STANDBY):
            await self.back(name, 0)

    @property
    def folder(self) -> Path:
        """Where bob's plugin has its files."""
        return self.bob.folder / "regtest" / FOLDER


async def ready(value: T) -> T:
    """A value as what `until` asks."""
    return value


async def until(ask: Callable[[], Awaitable[T | None]]) -> T:
    """The first answer that is true."""
    with trio.fail_after(WAIT_S):
        while not (found := await ask()):
            await trio.sleep(POLL_S)
        return found


@asynccontextmanager
async def world(*options: str) -> AsyncIterator[World]:
    """Both nodes, up, with an open channel and with both processes of the plugin each; a BROKEN line in a log is a failure."""
    # Sockets' paths have to be short.
    with tempfile.TemporaryDirectory(prefix="nh", dir="/tmp") as made:
        folder = Path(made)
        settings = Settings(cltv_delta=34, cltv_final=18, max_concurrent_htlcs=30, plugins=(write_hold_plugin(folder),), options=options)
        async with running(folder, FUNDS, settings) as network:
            here = World(network)
            await here.both()
            yield here
