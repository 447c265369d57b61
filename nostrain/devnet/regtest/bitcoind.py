"""One bitcoind on regtest: its JSON-RPC over HTTP, with the cookie that it writes into its folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import httpx
import trio

from nostrain.devnet.processes import Processes
from nostrain.errors import OutcomeUnknown, Unavailable

START_S: Final = 60.0
CALL_S: Final = 60.0
POLL_S: Final = 0.1
COINBASE_MATURITY: Final = 100
WALLET: Final = "devnet"
FALLBACK_FEE: Final = "0.00001"
"""bitcoin per kB: regtest has nothing to estimate from."""
RELAY_FEE: Final = "0.000001"
"""bitcoin per kB, Bitcoin Core's default since release 30. lightningd claims an HTLC with 0.96 sat per vB at first, below what others relay."""
SAT_PER_BITCOIN: Final = 100_000_000


class Bitcoind:
    """A bitcoind in a folder of its own."""

    def __init__(self, processes: Processes, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self._processes = processes
        self._client = httpx.AsyncClient(trust_env=False, timeout=CALL_S)
        self._address = ""

    async def start(self) -> None:
        """Start it, and mine until its wallet has coins to spend. Raises Unavailable when it does not come up."""
        self.folder.mkdir(parents=True, exist_ok=True)
        fees = (f"-fallbackfee={FALLBACK_FEE}", f"-minrelaytxfee={RELAY_FEE}", f"-blockmintxfee={RELAY_FEE}")
        options = ("-regtest", "-server", "-listen=0", "-printtoconsole=0", *fees, f"-rpcport={self.port}")
        child = await self._processes.start("bitcoind", ("bitcoind", f"-datadir={self.folder}", *options), self.folder / "bitcoind.out")
        with trio.move_on_after(START_S):
            while child.exit_code is None:
                try:
                    await self.ask("getblockcount")
                except Unavailable:
                    await trio.sleep(POLL_S)
                else:
                    await self.ask("createwallet", WALLET)
                    self._address = await self.ask("getnewaddress")
                    await self.mine(COINBASE_MATURITY + 1)
                    return
        raise Unavailable(f"bitcoind did not start: it {child.ending}; its output is in {self.folder}")

    async def ask(self, method: str, *params: object) -> Any:
        """The result of one call. Raises Unavailable: it is not up, or it refused; OutcomeUnknown: the reply was lost."""
        try:
            cookie = (self.folder / "regtest" / ".cookie").read_text().split(":", 1)
            request = {"jsonrpc": "1.0", "id": "nostrain", "method": method, "params": list(params)}
            reply = (await self._client.post(f"http://127.0.0.1:{self.port}/", json=request, auth=(cookie[0], cookie[1]))).json()
        except (OSError, httpx.ConnectError) as error:
            raise Unavailable(f"bitcoind: {error}") from error
        except (httpx.HTTPError, ValueError) as error:
            raise OutcomeUnknown(f"bitcoind: {method}: {error}") from error
        if reply.get("error") is not None:
            raise Unavailable(f"bitcoind: {method}: {reply['error'].get('message')}")
        return reply["result"]

    async def mine(self, blocks: int) -> int:
        """Mine so many blocks; the new height. Raises Unavailable, OutcomeUnknown."""
        await self.ask("generatetoaddress", blocks, self._address)
        return await self.height()

    async def height(self) -> int:
        """The height of the chain. Raises Unavailable, OutcomeUnknown."""
        return int(await self.ask("getblockcount"))

    async def pay(self, amounts_sat: Sequence[tuple[str, int]]) -> str:
        """Send to addresses in one transaction; its id. Raises Unavailable, OutcomeUnknown."""
        outputs = {address: f"{sat // SAT_PER_BITCOIN}.{sat % SAT_PER_BITCOIN:08d}" for address, sat in amounts_sat}
        return str(await self.ask("sendmany", "", outputs))

    async def stop(self) -> None:
        """Close the client; the process ends with the others."""
        await self._client.aclose()
