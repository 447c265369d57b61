"""Values that are of the right type and cannot work, contradictions between them, and secrets where none belong: one clear line for each."""

from __future__ import annotations

from pathlib import Path

import pytest

from nostrain.config import EngineConfig, load_config
from tests.config.files import COORDINATOR, NODE, WORKER, channels, paid, refused, withdrawing, write


@pytest.mark.parametrize("name", ["", "W1", "a b", "-x", "ü", "x" * 64, "../x"])
def test_a_name_is_fit_for_paths_and_logs(tmp_path: Path, name: str) -> None:
    assert refused(write(tmp_path, WORKER), (f"name={name}",)).key == "name"


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("relays=http://relay.example", "relays"),
        ("relays=relay.example", "relays"),
        ("relays=ws://", "relays"),
        ("relays=ws://h:99999", "relays"),
        ("relays=ws://[::1", "relays"),
        ("relays=ws://a.example,ws://a.example/", "relays"),
        ("relays=ws://a.example/?x=1", "relays"),
        ("relays=", "relays"),
        ("blobs.servers=ftp://x", "blobs.servers"),
        ("blobs.bind=3000", "blobs.bind"),
        ("engine.device=gpu", "engine.device"),
        ("engine.device=tpu", "engine.device"),
        ("engine.precision=float16", "engine.precision"),
        ("engine.micro_batch=-1", "engine.micro_batch"),
        ("blobs.bind=127.0.0.1:http", "blobs.bind"),
        ("blobs.bind=127.0.0.1:70000", "blobs.bind"),
        ("blobs.max_bytes=99999999999999", "blobs.max_bytes"),
        ("join.run=first", "join.run"),
        ("join.run=nevent1qqqq", "join.run"),
        ("join.coordinator=npub1xyz", "join.coordinator"),
        ("roles=worker,worker", "roles"),
        ("roles=worker,validator", "roles"),
        ("roles=", "roles"),
        ("roles=coordinator", "coordinator.run"),
        ("lightning.address=node.example:9735", "lightning.address"),
        ("lightning.address=203.0.113.7", "lightning.address"),
        ("lightning.rune_file=/rune", "lightning.node"),
        (f"lightning.node={NODE}", "lightning.rune_file"),
        ("lightning.node=127.0.0.1:9735", "lightning.node"),
        (f"lightning.node={NODE}0", "lightning.node"),
        ("lightning.node=02abc@127.0.0.1:9735", "lightning.node"),
    ],
)
def test_values_that_cannot_work(tmp_path: Path, override: str, key: str) -> None:
    assert refused(write(tmp_path, WORKER), (override,)).key == key


@pytest.mark.parametrize("option", ["device=cuda", "precision=bfloat16", "compile=true"])
def test_what_mlx_does_not_have_is_refused(tmp_path: Path, option: str) -> None:
    key = option.partition("=")[0]
    assert refused(write(tmp_path, WORKER), ("engine.kind=mlx", f"engine.{option}")).key == f"engine.{key}"
    config = load_config(write(tmp_path, WORKER), [f"engine.{option}"])
    assert getattr(config.engine, key) != getattr(EngineConfig(), key)


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (("roles=blobs",), "roles"),
        (("roles=coordinator", "blobs.servers=[]"), "blobs.servers"),
        (("coordinator.run.threshold=4",), "coordinator.run.threshold"),
        (("coordinator.run.settlement.mode=hold", "coordinator.run.validators=any"), "coordinator.run.settlement.pool_sat"),
        (("coordinator.run.settlement.pool_sat=5",), "coordinator.run.settlement.mode"),
        (("coordinator.run.settlement.slots=5",), "coordinator.run.settlement.mode"),
        (paid(6400, slots=0), "coordinator.run.settlement.slots"),
        (paid(6400, slots=3), "coordinator.run.settlement.slots"),
        (paid(6399), "coordinator.run.settlement.pool_sat"),
        (paid(6400, feerate_perkb=1001), "coordinator.run.settlement.pool_sat"),
        (paid(15, feerate_perkb=0), "coordinator.run.settlement.pool_sat"),
        (paid(6400, fee_sat=81), "coordinator.run.settlement.fee_sat"),
        (paid(6400, epoch_rounds=9), "coordinator.run.settlement.epoch_rounds"),
        (("coordinator.channels.open=true",), "coordinator.channels.open"),
        ((*paid(6400, fee_sat=80), "coordinator.channels.open=true"), "coordinator.channels.max_total_sat"),
        ((*paid(6400, fee_sat=80), *channels(), "coordinator.channels.max_day_sat=0"), "coordinator.channels.max_day_sat"),
        ((*paid(6400, fee_sat=80), *channels(), "coordinator.channels.max_day_sat=100001"), "coordinator.channels.max_day_sat"),
        ((*paid(6400), *channels()), "coordinator.channels.to"),
        ((*paid(6400, fee_sat=80), *channels(), "coordinator.channels.reserve_sat=1"), "coordinator.channels.reserve_sat"),
        (
            (*paid(6400, fee_sat=80), *channels(), *withdrawing()),
            "lightning.withdraw.to",
        ),
        (("coordinator.run.timing.commit_s=0",), "coordinator.run.timing.commit_s"),
        (("coordinator.run.relays=http://a.example",), "coordinator.run.relays"),
        ((f"coordinator.run.relays={','.join(f'wss://r{number}.example' for number in range(9))}",), "coordinator.run.relays"),
    ],
)
def test_contradictions_of_a_coordinator(tmp_path: Path, overrides: tuple[str, ...], key: str) -> None:
    assert refused(write(tmp_path, COORDINATOR), overrides).key == key


@pytest.mark.parametrize(
    "line", ["nsec = 'nsec1SECRET'", "secret_key = 'SECRET'", "[engine]\npython = 'nsec1SECRET'", "[join]\nrun = 'NSEC1SECRET'"]
)
def test_secrets_are_refused_and_not_repeated(tmp_path: Path, line: str) -> None:
    assert "SECRET" not in str(refused(write(tmp_path, WORKER + line)))


def test_a_password_in_a_url_is_refused_and_not_repeated(tmp_path: Path) -> None:
    error = refused(write(tmp_path, WORKER), ("relays=ws://user:SECRET@relay.example",))
    assert error.key == "relays"
    assert "SECRET" not in str(error)


def test_long_values_are_shortened(tmp_path: Path) -> None:
    assert "…" in str(refused(write(tmp_path, WORKER + f"[engine]\nthreads = '{'x' * 10_000}'")))
