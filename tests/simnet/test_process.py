"""`python -m nostrain.devnet.simnet`: how it starts, how it ends, what it refuses."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nostrain.lightning.client import ClnLightning
from tests.regtest.networks import ask

PATIENCE_S = 10
COMMAND = (sys.executable, "-m", "nostrain.devnet.simnet")


def start(folder: Path, *options: str) -> subprocess.Popen[str]:
    """A running simnet whose sockets listen."""
    command = [*COMMAND, "--dir", str(folder), "--nodes", "a=1000000,b=0", "--ready-file", str(folder / "ready"), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert "test network" in process.stdout.readline()
    process.stdout.close()
    return process


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_well_and_takes_its_sockets_with_it(tmp_path: Path, how: signal.Signals) -> None:
    process = start(tmp_path)
    control = Path((tmp_path / "ready").read_text())
    assert control == tmp_path / "simnet-rpc"
    assert oct(control.stat().st_mode & 0o777) == "0o600"
    assert (tmp_path / "a" / "lightning-rpc").is_socket()
    process.send_signal(how)
    assert process.wait(PATIENCE_S) == 0
    assert [path.name for path in tmp_path.rglob("*-rpc")] == []


async def test_blocks_come_by_the_clock(tmp_path: Path) -> None:
    process = start(tmp_path, "--block-seconds", "0.02", "--max-accepted-htlcs", "483")
    try:
        node = ClnLightning(tmp_path / "b" / "lightning-rpc")
        height = await node.block_height()
        waited = await ask(tmp_path / "b" / "lightning-rpc", "waitblockheight", {"blockheight": height + 3})
        assert waited["blockheight"] >= height + 3
        (channel,) = (await node.balances()).channels
        assert channel.max_accepted_htlcs == 483
    finally:
        process.kill()
        process.wait(PATIENCE_S)


@pytest.mark.parametrize(
    "options",
    [
        ["--nodes", "a=1,b=0", "--network", "bitcoin"],
        ["--nodes", "a=1"],
        ["--nodes", "a=1,a=2"],
        ["--nodes", "a=1,../b=2"],
        ["--nodes", "a=1,b=-2"],
        ["--nodes", "a=1,b=0", "--max-accepted-htlcs", "484"],
    ],
)
def test_nonsense_and_mainnet_are_refused(tmp_path: Path, options: list[str]) -> None:
    found = subprocess.run([*COMMAND, "--dir", str(tmp_path), *options], capture_output=True, text=True, timeout=PATIENCE_S)
    assert found.returncode == 2
    assert "error: argument" in found.stderr
