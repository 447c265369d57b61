"""What a machine is believed to have for an engine."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from nostrain.config.schema import EngineConfig
from nostrain.daemon import machine
from nostrain.daemon.machine import engine_machine, engine_memory

INSTALLED = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without card and without limit: the folder in which both would be."""
    monkeypatch.setattr(machine, "_NVIDIA", tmp_path / "nvidia")
    monkeypatch.setattr(machine, "_LIMIT", tmp_path / "limit")
    return tmp_path


def test_the_operators_word_counts() -> None:
    assert engine_memory(EngineConfig(memory_mb=5, device="cuda")) == 5 << 20


def test_the_machines_own_memory_is_the_cpus_and_a_macs() -> None:
    for config in (EngineConfig(), EngineConfig(device="cpu"), EngineConfig(device="mps"), EngineConfig(kind="mlx")):
        assert engine_memory(config) == INSTALLED


def test_a_card_has_memory_of_its_own_that_nobody_asked_for(bare: Path) -> None:
    assert engine_memory(EngineConfig(device="cuda")) == 0
    (bare / "nvidia").touch()
    assert engine_memory(EngineConfig()) == 0
    assert engine_memory(EngineConfig(device="cpu")) == INSTALLED


@pytest.mark.parametrize(
    ("said", "bytes_"), [("1048576\n", 1 << 20), ("max\n", INSTALLED), ("", INSTALLED), (str(INSTALLED * 2), INSTALLED)]
)
def test_a_container_has_what_it_is_given(bare: Path, said: str, bytes_: int) -> None:
    (bare / "limit").write_text(said)
    assert engine_memory(EngineConfig()) == bytes_


def test_a_machine_is_another_when_training_may_be_faster_or_slower() -> None:
    changes = ({}, {"kind": "mlx"}, {"device": "cpu"}, {"precision": "bfloat16"}, {"threads": 2}, {"micro_batch": 1}, {"compile": True})
    machines = [engine_machine(msgspec.structs.replace(EngineConfig(), **change)) for change in changes]
    assert len(set(machines)) == len(changes)
    assert machines[0] == engine_machine(EngineConfig(memory_mb=7, job_timeout_s=9))
