"""A simnet in a process of its own: a coordinator in the middle, two workers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nostrain.lightning.client import ClnLightning
from nostrain.lightning.rpc import ClnRpc
from nostrain.units import Msat

PATIENCE_S = 10
FUNDS = {"coordinator": Msat(100_000_000), "worker-1": Msat(5_000_000), "worker-2": Msat(5_000_000)}


class SimnetProcess:
    """`python -m nostrain.devnet.simnet`, and its control socket."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        nodes = ",".join(f"{name}={amount}" for name, amount in FUNDS.items())
        command = [sys.executable, "-m", "nostrain.devnet.simnet", "--dir", str(folder), "--nodes", nodes]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert "test network" in self._process.stdout.readline()
        self._control = ClnRpc(folder / "simnet-rpc")

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(PATIENCE_S)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def socket(self, name: str) -> Path:
        return self.folder / name / "lightning-rpc"

    def lightning(self, name: str) -> ClnLightning:
        return ClnLightning(self.socket(name), hold_poll_s=0.02)

    async def control(self, what: str, /, **params: object) -> Any:
        return await self._control.call(f"simnet-{what}", params, dict, timeout_s=PATIENCE_S)

    async def balances(self) -> dict[str, int]:
        """What each node has; checked to be what was put in."""
        found = await self.control("balances")
        assert found["total_msat"] == sum(FUNDS.values())
        return {name: node["balance_msat"] for name, node in found["nodes"].items()}


@pytest.fixture
def simnet(tmp_path: Path) -> Iterator[SimnetProcess]:
    found = SimnetProcess(tmp_path)
    yield found
    found.stop()
