"""A simnet inside the test's own process, asked over its sockets without any client of ours."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from nostrain.devnet.simnet.channels import DEFAULT_SLOTS
from nostrain.devnet.simnet.process import Simnet
from nostrain.units import Msat

PATIENCE_S = 10


class Failed(Exception):
    """A method answered with an error."""

    def __init__(self, error: dict[str, Any]) -> None:
        self.code, self.data = error["code"], error.get("data")
        super().__init__(error["message"])


async def replies(stream: trio.abc.Stream, count: int) -> list[dict[str, Any]]:
    """The next `count` replies; fewer if the connection ends."""
    buffer = b""
    with trio.fail_after(PATIENCE_S):
        while buffer.count(b"\n\n") < count and (chunk := await stream.receive_some(65536)):
            buffer += chunk
    return [msgspec.json.decode(text) for text in buffer.split(b"\n\n")[:-1]]


class World:
    """A hub `c` with two others, `w` and `v`."""

    def __init__(self, folder: Path, *, slots: int = DEFAULT_SLOTS, **funds: int) -> None:
        self.folder = folder
        self.funds = {name: Msat(amount) for name, amount in (funds or {"c": 2_000_000_000, "w": 50_000_000, "v": 0}).items()}
        self.simnet = Simnet(folder, self.funds, slots)
        self.network = self.simnet.network

    def path(self, name: str) -> Path:
        return self.folder / "simnet-rpc" if name == "simnet" else self.folder / name / "lightning-rpc"

    async def ask(self, node: str, method: str, /, **params: object) -> Any:
        """The result. Raises Failed, EOFError when the connection ends without a reply."""
        with trio.fail_after(PATIENCE_S):
            stream = await trio.open_unix_socket(self.path(node))
            async with stream:
                await stream.send_all(msgspec.json.encode({"jsonrpc": "2.0", "id": "1", "method": method, "params": params}))
                answers = await replies(stream, 1)
        if not answers:
            raise EOFError
        if "error" in answers[0]:
            raise Failed(answers[0]["error"])
        return answers[0]["result"]

    async def balance(self, name: str) -> Any:
        balances = await self.ask("simnet", "simnet-balances")
        assert sum(node["balance_msat"] for node in balances["nodes"].values()) == balances["total_msat"] == sum(self.funds.values())
        return balances["nodes"][name]

    async def held_invoice(self, node: str, amount: int) -> tuple[str, dict[str, Any]]:
        """A preimage, and the decoded hold invoice on its hash; with `bolt11` added."""
        preimage = secrets.token_hex(32)
        payment_hash = hashlib.sha256(bytes.fromhex(preimage)).hexdigest()
        bolt11 = (await self.ask(node, "holdinvoice", payment_hash=payment_hash, amount=amount))["bolt11"]
        return preimage, await self.ask(node, "decode", string=bolt11) | {"bolt11": bolt11}

    async def send(self, payer: str, invoice: dict[str, Any], **changes: object) -> Any:
        """`sendpay` over the direct channel."""
        channel = next(
            channel
            for channel in (await self.ask(payer, "listpeerchannels"))["channels"]
            if channel["peer_id"] == invoice["payee"] or len(self.funds) == 2
        )
        hop = {
            "id": invoice["payee"],
            "channel": channel["short_channel_id"],
            "amount_msat": invoice["amount_msat"],
            "delay": invoice["min_final_cltv_expiry"],
        }
        params = {"route": [hop], "payment_hash": invoice["payment_hash"], "payment_secret": invoice["payment_secret"]}
        return await self.ask(payer, "sendpay", **(params | changes))

    async def wait(self, payer: str, invoice: dict[str, Any]) -> Any:
        return await self.ask(payer, "waitsendpay", payment_hash=invoice["payment_hash"])


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[World]:
    """A world that is served; in the end its money must be where it should."""
    world = World(folder)
    async with trio.open_nursery() as nursery:
        await nursery.start(world.simnet.run)
        yield world
        world.network.check()
        nursery.cancel_scope.cancel()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with running(tmp_path) as world:
        yield world
