"""The files that a devnet's participants start from: the same for the same seed, and such as the daemon reads."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from nostrain.config.load import load_config
from nostrain.devnet.command import usage_problem
from nostrain.devnet.layout import (
    FEE_MSAT,
    LEVEL_MSAT,
    Options,
    lay_out,
    lightning_socket,
    longest_socket,
    parse_engines,
    relays_of,
    roles_of,
)
from nostrain.errors import ConfigError
from nostrain.protocol.manifest import TimingSpec

RELAYS = ("ws://127.0.0.1:4242", "ws://127.0.0.1:4243")


def keys(folder: Path, **options: int) -> dict[str, str]:
    return {one.name: one.pubkey for one in lay_out(folder, Options(**options), RELAYS)}


def test_keys_follow_from_the_seed_and_differ_from_each_other(tmp_path: Path) -> None:
    first, again, other = keys(tmp_path / "1", seed=7), keys(tmp_path / "2", seed=7), keys(tmp_path / "3", seed=8)
    assert first == again
    assert len(set(first.values()) | set(other.values())) == 16
    assert list(first) == ["coordinator", "validator-1", "validator-2", "validator-3", "worker-1", "worker-2", "worker-3", "worker-4"]


def test_on_relays_of_others_a_devnet_has_keys_that_nobody_knows_and_follows_itself_alone(tmp_path: Path) -> None:
    first, again = (lay_out(tmp_path / name, Options(workers=2, relay_urls=RELAYS), RELAYS) for name in "ab")
    assert not {one.pubkey for one in first} & {one.pubkey for one in again}
    coordinator, *others = first
    assert load_config(coordinator.config).join.coordinator is None
    assert {load_config(one.config).join.coordinator for one in others} == {coordinator.pubkey}
    assert relays_of(Options(relay_urls=RELAYS)) == [f"relay-{number}" for number in range(1, len(RELAYS) + 1)]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (Options(relay_urls=("https://relay.example",)), "begins with ws:// or wss://"),
        (Options(relay_urls=("wss://",)), "begins with ws:// or wss://"),
        (Options(relay_urls=("wss://relay.example",), relays=2), "leave one of them out"),
        (Options(relay_urls=("wss://relay.example",)), None),
    ],
)
def test_addresses_of_relays_are_looked_at_before_anything_starts(tmp_path: Path, options: Options, problem: str | None) -> None:
    found = usage_problem(options, tmp_path / "root", None)
    assert found is None if problem is None else problem in (found or "")


def test_more_workers_change_nobodys_key(tmp_path: Path) -> None:
    few, many = keys(tmp_path / "1", workers=2, seed=3), keys(tmp_path / "2", workers=4, seed=3)
    assert few.items() <= many.items()


@pytest.mark.parametrize("name", ["plain", "with space", 'a"quote', "backslash\\n", "ünï", "emoji 🜁"])
def test_every_configuration_is_one_that_the_daemon_reads(tmp_path: Path, name: str) -> None:
    root = tmp_path / name
    text = tmp_path / f"{name} text"
    for participant in lay_out(root, Options(workers=2, validators=3, seed=5, rounds=4, text=text, threads=2), RELAYS):
        config = load_config(participant.config)
        assert config.name == participant.name
        assert config.data_path == participant.folder
        assert config.control_path == participant.control
        assert config.relays == RELAYS
        assert config.engine.threads == 2
        assert participant.role in config.roles
        socket = str(lightning_socket(root, "simnet", participant.name))
        assert config.lightning.socket == socket
        if config.coordinator is None:
            continue
        run = config.coordinator.run
        assert config.blobs.servers == (f"http://{config.blobs.bind}",)
        assert (run.rounds, run.seed, run.text, run.min_workers, run.min_validators, run.threshold) == (4, 5, str(text), 2, 3, 2)
        assert run.timing.spec() == TimingSpec()
        spec = run.settlement.spec("http://127.0.0.1:1", "regtest")
        assert (spec.mode, spec.level_msat(4), spec.fee_msat, spec.slots) == ("hold", LEVEL_MSAT, FEE_MSAT, 2)


def test_engines_go_round_within_each_role(tmp_path: Path) -> None:
    options = Options(workers=3, validators=2, engines=parse_engines("pytorch, mlx"))
    engines = {one.name: load_config(one.config).engine for one in lay_out(tmp_path, options, RELAYS)}
    assert {name for name, engine in engines.items() if engine.kind == "mlx"} == {"worker-2", "validator-2"}
    assert {engine.device for engine in engines.values()} == {"cpu"}
    with pytest.raises(ConfigError, match="no such engine"):
        parse_engines("pytorch,tensorflow")


@pytest.mark.parametrize(("validators", "threshold"), [(1, 1), (2, 2), (3, 2), (4, 3), (8, 5)])
def test_a_majority_decides(tmp_path: Path, validators: int, threshold: int) -> None:
    coordinator = lay_out(tmp_path, Options(validators=validators), RELAYS)[0]
    config = load_config(coordinator.config)
    assert config.coordinator is not None
    assert config.coordinator.run.threshold == threshold


def test_deadlines_can_be_set(tmp_path: Path) -> None:
    timing = TimingSpec(commit_s=3, acknowledge_s=4, reveal_s=5, verdict_s=6, attest_s=7, grace_s=8)
    config = load_config(lay_out(tmp_path, Options(timing=timing), RELAYS)[0].config)
    assert config.coordinator is not None
    assert config.coordinator.run.timing.spec() == timing


def test_secrets_are_the_owners_alone(tmp_path: Path) -> None:
    for participant in lay_out(tmp_path, Options(), RELAYS):
        assert stat.S_IMODE((participant.folder / "root.key").stat().st_mode) == 0o600


def test_the_longest_socket_is_known_beforehand(tmp_path: Path) -> None:
    options = Options(workers=16)
    longest = max(len(str(tmp_path / "simnet" / name / "lightning-rpc")) for name, _ in roles_of(options))
    assert longest_socket(tmp_path, options) == longest
    assert longest_socket(tmp_path, Options(workers=16, lightning="regtest")) == longest + len("regtest") - len("simnet")


def test_a_run_that_is_not_paid_needs_no_lightning(tmp_path: Path) -> None:
    for participant in lay_out(tmp_path, Options(workers=1, validators=1, paid=False), RELAYS):
        config = load_config(participant.config)
        assert config.lightning.socket == ""
        assert config.coordinator is None or config.coordinator.run.settlement.mode == "none"
