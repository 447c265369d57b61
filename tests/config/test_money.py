"""What the configuration says about money: what a run pays, the node that pays it, channels and withdrawals by policy."""

from __future__ import annotations

from pathlib import Path

import pytest

from nostrain.config import SettlementConfig, load_config
from nostrain.config.own_node import own_node
from nostrain.daemon.policies import channel_policy, withdraw_policy
from nostrain.protocol.manifest import SettlementSpec
from nostrain.units import Msat
from tests.config.files import ADDRESSES, COORDINATOR, NODE, WORKER, channels, paid, refused, withdrawing, write


@pytest.mark.parametrize("network", ADDRESSES)
def test_money_goes_to_an_address_of_the_right_network_or_the_daemon_does_not_start(tmp_path: Path, network: str) -> None:
    path = write(tmp_path, WORKER)
    policy = withdraw_policy(load_config(path, withdrawing(network)))
    assert policy is not None
    assert (policy.address, policy.above_msat, policy.keep_msat) == (ADDRESSES[network], 100_000_000, 20_000_000)
    prefix = ADDRESSES[network].partition("1")[0]
    for other in (name for name, address in ADDRESSES.items() if address.partition("1")[0] != prefix):
        assert refused(path, withdrawing(network, ADDRESSES[other])).key == "lightning.withdraw.to"
    assert withdraw_policy(load_config(path)) is None


@pytest.mark.parametrize(
    ("to", "reason"),
    [
        ("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t5", "checksum"),
        ("1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2", "not a segwit address"),
        ("bc1pw508d6qejxtdg4y5r3zarvary0c5xw7kw508d6qejxtdg4y5r3zarvary0c5xw7kt5nd6y", "do not have yet"),
        ("BC1SW50QGDZ25J", "do not have yet"),
        ("bc1zw508d6qejxtdg4y5r3zarvaryvaxxpcs", "do not have yet"),
    ],
)
def test_addresses_that_lose_money_are_refused(tmp_path: Path, to: str, reason: str) -> None:
    assert reason in refused(write(tmp_path, WORKER), withdrawing("bitcoin", to)).reason


def test_a_withdrawal_needs_a_node_and_an_amount_that_is_worth_it(tmp_path: Path) -> None:
    path = write(tmp_path, WORKER)
    assert refused(path, withdrawing(above_sat=99_999)).key == "lightning.withdraw.above_sat"
    assert refused(path, (*withdrawing(), "lightning.socket=")).key == "lightning.socket"
    assert refused(path, (*withdrawing(), "lightning.withdraw.keep_sat=1")).key == "lightning.withdraw.keep_sat"
    assert refused(path, (*withdrawing(), "lightning.withdraw.reserve_sat=1")).key == "lightning.withdraw.reserve_sat"


def test_channels_opened_by_policy_are_off_unless_wanted_and_within_limits(tmp_path: Path) -> None:
    plain = load_config(write(tmp_path, COORDINATOR)).coordinator
    assert plain is not None
    assert not plain.channels.open
    config = load_config(write(tmp_path, COORDINATOR), (*paid(6400, fee_sat=80), *channels(), "lightning.socket=/tmp/rpc"))
    policy = channel_policy(config)
    assert policy is not None
    assert (policy.to, policy.total_msat, policy.day_msat, policy.private) == ("ticket", 100_000_000, 50_000_000, False)
    assert channel_policy(load_config(write(tmp_path, COORDINATOR))) is None


def test_a_schedule_that_just_fits_is_taken(tmp_path: Path) -> None:
    path = write(tmp_path, COORDINATOR)
    for overrides in (paid(6400, fee_sat=80), paid(16, feerate_perkb=0)):
        assert load_config(path, overrides).coordinator is not None
    error = refused(path, paid(6399))
    assert "a level pays 399 sat" in error.reason
    assert "Raise pool_sat to 6400" in error.fix


@pytest.mark.parametrize(("key", "word"), [("level_msat", "pool_sat"), ("fee_msat", "fee_sat")])
def test_keys_of_earlier_versions_say_what_to_write_now(tmp_path: Path, key: str, word: str) -> None:
    error = refused(write(tmp_path, COORDINATOR), (f"coordinator.run.settlement.{key}=5",))
    assert error.key == f"coordinator.run.settlement.{key}"
    assert word in error.fix


def test_settlement_becomes_the_manifests_settlement() -> None:
    spec = SettlementConfig(mode="hold", pool_sat=8000, slots=4, fee_sat=20).spec("http://127.0.0.1:1", "signet")
    paid = SettlementSpec(
        mode="hold", pool_msat=Msat(8_000_000), slots=4, fee_msat=Msat(20_000), ticket_server="http://127.0.0.1:1", network="signet"
    )
    assert spec == paid
    assert spec.level_msat(4) == 500_000
    assert SettlementConfig().spec("http://127.0.0.1:1", "regtest") == SettlementSpec()


def test_a_node_is_named_by_its_socket_or_by_its_address_with_a_rune(tmp_path: Path) -> None:
    path = write(tmp_path, WORKER)
    found = load_config(path, (f"lightning.node={NODE}", "lightning.rune_file=/run/rune"), {}).lightning
    assert found.given
    assert own_node(found.node) == ("02" * 33, "127.0.0.1", 9735)
    assert own_node(f"{'03' * 33}@[::1]:19846") == ("03" * 33, "::1", 19846)
    assert load_config(path, ("lightning.socket=/rpc",), {}).lightning.given
    assert not load_config(path, (), {}).lightning.given
    both = refused(path, (f"lightning.node={NODE}", "lightning.rune_file=/run/rune", "lightning.socket=/rpc"))
    assert both.key == "lightning.node"
