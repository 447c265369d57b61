"""A worker's and a coordinator's configuration, and what a refused one must say."""

from __future__ import annotations

from pathlib import Path

import pytest

from nostrain.config import load_config
from nostrain.errors import ConfigError

NODE = f"{'02' * 33}@127.0.0.1:9735"
WORKER = """
name = "w1"
data_dir = "/tmp/w1"
roles = ["worker"]
relays = ["ws://127.0.0.1:7777"]
"""

COORDINATOR = """
name = "c"
data_dir = "/tmp/c"
roles = ["coordinator", "blobs"]
relays = ["wss://relay.example.org", "ws://127.0.0.1:7777"]
log_level = "debug"

[blobs]
bind = "127.0.0.1:3000"
servers = ["https://blobs.example.org"]

[coordinator.run]
name = "first"
rounds = 8
min_workers = 4
min_validators = 3
threshold = 2

[coordinator.run.timing]
commit_s = 30
"""


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "nostraind.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refused(path: Path, overrides: tuple[str, ...] = (), env: dict[str, str] | None = None) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides, env)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400 + len(str(path))
    assert caught.value.fix
    return caught.value


def paid(pool_sat: int, **settings: int) -> tuple[str, ...]:
    """Overrides for a run that pays four workers four levels."""
    prefix = "coordinator.run.settlement"
    named = {"slots": 4, "pool_sat": pool_sat} | settings
    return ("coordinator.run.validators=any", f"{prefix}.mode=hold", *(f"{prefix}.{key}={value}" for key, value in named.items()))


def channels() -> tuple[str, ...]:
    """Overrides for a coordinator that opens channels by itself."""
    return ("coordinator.channels.open=true", "coordinator.channels.max_total_sat=100000", "coordinator.channels.max_day_sat=50000")


ADDRESSES = {
    "bitcoin": "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4",
    "testnet": "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx",
    "signet": "tb1p8shlefa4fl7yfdcw9snel0w9449wf866dxtr5newstxke0ggl04sxdc87n",
    "regtest": "bcrt1p8shlefa4fl7yfdcw9snel0w9449wf866dxtr5newstxke0ggl04st5jptf",
}


def withdrawing(network: str = "regtest", to: str = "", above_sat: int = 100_000) -> tuple[str, ...]:
    """Overrides for a node whose money goes to an address."""
    prefix = "lightning.withdraw"
    where = (f"lightning.network={network}", "lightning.socket=/tmp/rpc")
    return (*where, f"{prefix}.to={to or ADDRESSES[network]}", f"{prefix}.above_sat={above_sat}")
