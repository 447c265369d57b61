"""Networks for tests, each a process with a control socket: the simnet, or bitcoind and lightningds on regtest."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Final, Literal

import msgspec
import pytest
import trio

from nostrain.devnet.regtest.plugins import write_hold_plugin
from nostrain.devnet.regtest.programs import missing

PATIENCE_S: Final = 60
"""For one call, or for a process to end. Real nodes answer in milliseconds; but a restart or a hundred blocks take seconds."""
Kind = Literal["simnet", "regtest"]


class NetworkProcess:
    """`python -m nostrain.devnet.simnet` or `….regtest`, started and stopped; node NAME's socket is FOLDER/NAME/lightning-rpc."""

    def __init__(self, kind: Kind, folder: Path, funds: Mapping[str, int], *options: str) -> None:
        self.kind, self.folder, self.funds = kind, folder, dict(funds)
        nodes = ",".join(f"{name}={amount}" for name, amount in funds.items())
        command = [sys.executable, "-m", f"nostrain.devnet.{kind}", "--dir", str(folder), "--nodes", nodes, *options]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._output: IO[str] | None = self._process.stdout
        assert self._output is not None
        if kind not in self._output.readline():
            self.stop()
            pytest.fail(f"the {kind} network did not start; why is on standard error")

    def socket(self, name: str) -> Path:
        """Of one node."""
        return self.folder / name / "lightning-rpc"

    async def control(self, what: str, /, **params: object) -> Any:
        """The result of a control method. Raises AssertionError."""
        result = await ask(self.folder / f"{self.kind}-rpc", f"{self.kind}-{what}", params)
        assert not isinstance(result, Failure), result
        return result

    async def balances(self) -> dict[str, dict[str, int]]:
        """Of every node, having looked that nothing came or went."""
        balances = await self.control("balances")
        assert sum(node["balance_msat"] for node in balances["nodes"].values()) == sum(self.funds.values())
        return dict(balances["nodes"])

    async def start_all(self) -> None:
        """Bring back what a test has killed and, having failed, not started again."""
        for name in self.funds:
            await self.control("fault", kind="start", node=name)

    def stop(self) -> int:
        """SIGTERM; the exit code: 0 when all went well, and no lightningd logged that something is broken."""
        self._process.terminate()
        code = self._process.wait(PATIENCE_S)
        assert self._output is not None
        self._output.close()
        return code


class Failure(msgspec.Struct, frozen=True):
    """A method's error."""

    code: int
    message: str
    data: dict[str, Any] = {}


async def ask(path: Path, method: str, params: Mapping[str, object]) -> Any:
    """The result of one call, or its Failure; without any client of ours."""
    with trio.fail_after(PATIENCE_S):
        stream = await trio.open_unix_socket(path)
        async with stream:
            await stream.send_all(msgspec.json.encode({"jsonrpc": "2.0", "id": "1", "method": method, "params": dict(params)}))
            buffer = b""
            while not buffer.endswith(b"\n\n") and (chunk := await stream.receive_some(65536)):
                buffer += chunk
    reply = msgspec.json.decode(buffer)
    return msgspec.convert(reply["error"], Failure) if "error" in reply else reply["result"]


def running(
    kind: Kind, factory: pytest.TempPathFactory, funds: Mapping[str, int], *options: str, hold: bool = False
) -> Iterator[NetworkProcess]:
    """What a fixture yields: a network in a folder of its own, real nodes with the hold plugin if asked; it has to end well."""
    if kind == "regtest":
        require_programs()
    folder = factory.mktemp("net")
    plugin = ("--plugin", str(write_hold_plugin(folder))) if hold else ()
    network = NetworkProcess(kind, folder, funds, *plugin, *options)
    yield network
    assert network.stop() == 0


def require_programs() -> None:
    """Skip, and say what is missing."""
    absent = missing()
    if absent:
        pytest.skip(f"real Lightning nodes need {', '.join(absent)} on PATH")
