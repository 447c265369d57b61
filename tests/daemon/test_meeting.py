"""Which of our relays others are told."""

from __future__ import annotations

import pytest

from nostrain.config.schema import DaemonConfig
from nostrain.daemon.meeting import told

PUBLIC = ("wss://relay.example", "ws://93.184.216.34:7000", "wss://[2606:2800:220:1::]/path")


def config(*relays: str, private_addresses: bool = False) -> DaemonConfig:
    return DaemonConfig(name="x", data_dir="x", roles=("worker",), relays=relays, private_addresses=private_addresses)


@pytest.mark.parametrize(
    "relay", ["ws://127.0.0.1:7000", "ws://[::1]", "ws://192.168.1.5", "ws://localhost:7000", "ws://relay.localhost", "ws://nas.local", "wss://relay.corp.internal"]
)  # fmt: skip
def test_what_only_our_network_reaches_is_not_told(relay: str) -> None:
    assert told(config(relay, *PUBLIC)) == PUBLIC
    assert told(config(relay, private_addresses=True)) == (relay,)


def test_eight_are_told_in_one_spelling() -> None:
    relays = told(config("wss://Relay.Example/", *(f"wss://r{number}.example" for number in range(9))))
    assert relays[:2] == ("wss://relay.example", "wss://r0.example")
    assert len(relays) == 8
