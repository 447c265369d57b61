"""The Lightning network under `settle.py`: the simnet, or real nodes on regtest, in a process of its own; what it holds and what CPU it takes."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from os import sysconf
from pathlib import Path

import msgspec

from nostrain.devnet.layout import LightningKind
from nostrain.devnet.lightning import START_S, STOP_S
from nostrain.devnet.regtest.network import ADDED
from nostrain.devnet.regtest.plugins import write_hold_plugin
from nostrain.lightning.rpc import ClnRpc

HUB = "coordinator"
HUB_MSAT, WORKER_MSAT = 50_000_000, 5_000_000
"""What the payer and a payee have in a channel, as in a devnet."""
POLL_S = 0.1
START_NODE_S = 10.0
ASK_S = 30.0


class Balance(msgspec.Struct):
    """Of one node, in the network's own words."""

    balance_msat: int


class Balances(msgspec.Struct):
    """Of all nodes."""

    nodes: dict[str, Balance]
    total_msat: int


class Htlc(msgspec.Struct):
    """Of `listpeerchannels`."""

    direction: str
    state: str


class Channel(msgspec.Struct):
    """Of `listpeerchannels`."""

    htlcs: list[Htlc]


class Channels(msgspec.Struct):
    """`listpeerchannels`."""

    channels: list[Channel]


class Network:
    """A running one: its process and its sockets."""

    def __init__(self, folder: Path, kind: LightningKind, pid: int) -> None:
        self.kind, self.pid = kind, pid
        self._folder = folder
        self._control, self._hub = ClnRpc(folder / f"{kind}-rpc"), ClnRpc(self.socket(HUB))

    def socket(self, name: str) -> Path:
        """Of one node."""
        return self._folder / name / "lightning-rpc"

    async def balances(self) -> Balances:
        """What everybody has, once no HTLC is on its way."""
        return await self._control.call(f"{self.kind}-balances", {}, Balances, timeout_s=ASK_S)

    async def locked(self) -> int:
        """How many HTLCs of the payer both ends are committed to."""
        channels = (await self._hub.call("listpeerchannels", {}, Channels, timeout_s=ASK_S)).channels
        return sum(htlc.direction == "out" and htlc.state in ADDED for channel in channels for htlc in channel.htlcs)

    def cpu(self) -> float:
        """CPU seconds until now: of the process, all that it started, and what these have outlived."""
        children: dict[int, list[int]] = {}
        ticks: dict[int, int] = {}
        for entry in Path("/proc").iterdir():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split() if entry.name.isdigit() else []
            except OSError:
                continue
            if fields:
                children.setdefault(int(fields[1]), []).append(int(entry.name))
                ticks[int(entry.name)] = sum(map(int, fields[11:15]))
        family = [self.pid]
        for pid in family:
            family += children.get(pid, [])
        return sum(ticks.get(pid, 0) for pid in family) / sysconf("SC_CLK_TCK")


@contextmanager
def running(folder: Path, kind: LightningKind, payees: Sequence[str]) -> Iterator[Network]:
    """The network with open channels, until the body ends. Exits when it does not start, or did not end as it should."""
    nodes = ",".join([f"{HUB}={HUB_MSAT * len(payees)}", *(f"{name}={WORKER_MSAT}" for name in payees)])
    ready = folder / "ready"
    command = [sys.executable, "-m", f"nostrain.devnet.{kind}", "--dir", str(folder), "--nodes", nodes, "--ready-file", str(ready)]
    command += ["--plugin", str(write_hold_plugin(folder))] if kind == "regtest" else []
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        limit = time.monotonic() + START_S[kind] + START_NODE_S * len(payees)
        while not ready.exists():
            if process.poll() is not None or time.monotonic() > limit:
                raise SystemExit(f"the {kind} does not start")
            time.sleep(POLL_S)
        yield Network(folder, kind, process.pid)
    finally:
        process.terminate()
        code = process.wait(STOP_S)
    if code != 0:
        raise SystemExit(f"the {kind} ended with code {code}")
