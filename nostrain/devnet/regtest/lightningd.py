"""One lightningd on regtest: its options, its life, and what it complained of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import trio

from nostrain.devnet.processes import Processes
from nostrain.devnet.regtest.bitcoind import Bitcoind
from nostrain.errors import OutcomeUnknown, Unavailable
from nostrain.lightning.node import ClnNode
from nostrain.lightning.rpc import ClnError

SOCKET: Final = "lightning-rpc"
START_S: Final = 60.0
STOP_S: Final = 20.0
CALL_S: Final = 60.0
POLL_S: Final = 0.1
FEERATE_PERKW: Final = 1_000
BROKEN: Final = "**BROKEN**"
"""How lightningd marks what should never happen."""


class Settings(msgspec.Struct, frozen=True):
    """What a node is like towards others: lightningd's options `cltv-delta`, `cltv-final` and `max-concurrent-htlcs`, and plugins to run."""

    cltv_delta: int
    cltv_final: int
    max_concurrent_htlcs: int
    plugins: tuple[Path, ...] = ()
    options: tuple[str, ...] = ()


MAINNET_LIKE: Final = Settings(cltv_delta=34, cltv_final=18, max_concurrent_htlcs=30)
"""lightningd's defaults on mainnet (`lightningd/options.c`)."""
REGTEST: Final = Settings(cltv_delta=6, cltv_final=10, max_concurrent_htlcs=483)
"""lightningd's defaults on regtest."""


class Lightningd:
    """A lightningd in a folder of its own; its socket is FOLDER/lightning-rpc."""

    def __init__(self, processes: Processes, name: str, folder: Path, bitcoind: Bitcoind, port: int, settings: Settings) -> None:
        self.name, self.folder, self.port, self.settings = name, folder, port, settings
        self.socket = folder / SOCKET
        self.id = ""
        self._processes, self._bitcoind = processes, bitcoind
        self._node = ClnNode(self.socket, CALL_S)

    @property
    def up(self) -> bool:
        """Whether we have started it and not stopped or killed it."""
        return self.name in self._processes.children

    @property
    def log(self) -> Path:
        """Its own log."""
        return self.folder / "regtest" / "log"

    def command(self) -> tuple[str, ...]:
        """The command line: on loopback, with the short waits that lightningd's own tests use."""
        settings = self.settings
        return (
            "lightningd",
            "--network=regtest",
            f"--lightning-dir={self.folder}",
            f"--rpc-file={self.socket}",
            f"--bitcoin-datadir={self._bitcoind.folder}",
            f"--bitcoin-rpcport={self._bitcoind.port}",
            f"--bind-addr=127.0.0.1:{self.port}",
            f"--alias={self.name}",
            "--log-level=debug",
            "--log-file=log",
            "--disable-dns",
            "--autoconnect-seeker-peers=0",
            f"--force-feerates={FEERATE_PERKW}",
            f"--cltv-delta={settings.cltv_delta}",
            f"--cltv-final={settings.cltv_final}",
            f"--max-concurrent-htlcs={settings.max_concurrent_htlcs}",
            "--developer",
            "--dev-fast-gossip",
            "--dev-fast-reconnect",
            "--dev-bitcoind-poll=1",
            *(f"--plugin={plugin}" for plugin in settings.plugins),
            *settings.options,
        )

    async def start(self) -> None:
        """Start it and wait until it has the chain. Raises Unavailable when it does not come up."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.socket.unlink(missing_ok=True)
        child = await self._processes.start(self.name, self.command(), self.folder / "lightningd.out")
        with trio.move_on_after(START_S):
            while child.exit_code is None:
                try:
                    info = await self._node.info()
                except Unavailable:
                    await trio.sleep(POLL_S)
                else:
                    self.id = info.id
                    await self.reach(await self._bitcoind.height())
                    return
        raise Unavailable(f"the lightningd of {self.name} did not start: it {child.ending}; its output is in {self.folder}")

    async def ask(self, method: str, **params: object) -> Any:
        """The result of one call. Raises Unavailable, OutcomeUnknown, ClnError."""
        return await self._node.rpc.call(method, params, dict, timeout_s=CALL_S)

    async def channels(self) -> list[Mapping[str, Any]]:
        """`listpeerchannels`. Raises Unavailable."""
        try:
            return list((await self.ask("listpeerchannels"))["channels"])
        except (OutcomeUnknown, ClnError) as error:
            raise Unavailable(str(error)) from error

    async def reach(self, height: int) -> None:
        """Wait until it has seen that block. Raises Unavailable."""
        try:
            await self.ask("waitblockheight", blockheight=height, timeout=int(CALL_S) - 1)
        except (OutcomeUnknown, ClnError) as error:
            raise Unavailable(str(error)) from error

    async def kill(self) -> None:
        """kill -9 of lightningd with all its plugins."""
        await self._processes.kill(self.name)

    async def stop(self) -> None:
        """Stop it in good order; one that does not stop is killed."""
        child = self._processes.children.get(self.name)
        if child is None:
            return
        with trio.move_on_after(STOP_S):
            try:
                await self.ask("stop")
            except (Unavailable, OutcomeUnknown, ClnError):
                pass
            else:
                await child.process.wait()
        await self.kill()

    def complaints(self) -> list[str]:
        """The lines of its log that say that something is broken."""
        if not self.log.exists():
            return []
        with self.log.open(errors="replace") as lines:
            return [f"{self.name}: {line.rstrip()}" for line in lines if BROKEN in line]
