"""The frame around the code: what imports what at run time, the scripts, the service units."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nostrain.errors import EX_CONFIG
from tests.imports import imported_by

ROOT = Path(__file__).parents[1]
UNITS = ["nostraind.service", "nostraind@.service"]


DAEMON_SIDE = [
    "config",
    "journal",
    "engine",
    "nostr",
    "blobs",
    "http",
    "keys",
    "wire",
    "crypto",
    "core",
    "protocol",
    "ports",
    "daemon.main",
]


TENSORS = {"torch", "numpy", "transformers", "safetensors"}


def test_what_the_daemon_is_made_of_loads_neither_torch_nor_numpy() -> None:
    loaded = imported_by("\n".join(f"import nostrain.{name}" for name in DAEMON_SIDE))
    assert {"trio", "sqlite3", "msgspec"} <= loaded
    assert not loaded & TENSORS


def test_the_daemon_that_is_started_loads_neither_torch_nor_numpy() -> None:
    loaded = imported_by("import nostrain.daemon.main")
    assert {"trio", "sqlite3", "msgspec", "hypercorn", "httpx"} <= loaded
    assert not loaded & TENSORS


def test_the_supervisor_of_a_devnet_loads_neither_torch_nor_numpy() -> None:
    loaded = imported_by("import nostrain.devnet.command")
    assert "rich" in loaded
    assert not loaded & TENSORS


def test_the_engines_guard_is_light() -> None:
    """It runs before the engine's own imports, in every engine process."""
    plain = imported_by("import fcntl, runpy, threading")
    assert not (imported_by("import nostrain.daemon.guard") - plain) & {"trio", "msgspec", "click", "logging", *TENSORS}


def test_reading_a_configuration_needs_no_event_loop() -> None:
    assert not imported_by("import nostrain.config") & {"trio", "torch", "numpy", "asyncio", "coincurve", "nostr_sdk"}


def test_the_pure_core_loads_neither_loop_nor_clock_nor_log() -> None:
    plain = imported_by("import msgspec, hashlib, dataclasses, enum, typing")
    assert not (imported_by("import nostrain.core") - plain) & {"trio", "random", "logging", "numpy", "asyncio", "socket"}


@pytest.mark.parametrize("script", ["scripts/devnet", "scripts/test", "scripts/check", ".ci/run"])
def test_scripts_can_be_run_and_are_bash(script: str) -> None:
    path = ROOT / script
    assert path.stat().st_mode & 0o111
    assert "set -euo pipefail" in path.read_text()
    assert subprocess.run(["bash", "-n", str(path)], check=False).returncode == 0


def find_python(path: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """What scripts/_env.sh would make the environment with, seeing only `path`."""
    command = f"set -euo pipefail; source {ROOT}/scripts/_env.sh; find_python"
    bash = shutil.which("bash")
    assert bash is not None
    return subprocess.run([bash, "-c", command], env={"PATH": path, **environment}, capture_output=True, text=True, check=False)


def stand_in(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_a_python_that_is_only_a_failing_shim_is_passed_over(tmp_path: Path) -> None:
    good = f'exec {sys.executable} "$@"'
    stand_in(tmp_path, "python3.11", "echo not found >&2; exit 127")
    stand_in(tmp_path, "python3.12", "echo 'a version from the future' >&2; exit 1")
    stand_in(tmp_path, "python3", good)
    found = find_python(f"{tmp_path}:/usr/bin:/bin")
    assert found.returncode == 0
    assert found.stdout.strip() == str(tmp_path / "python3")


def test_a_named_python_goes_first_and_must_work(tmp_path: Path) -> None:
    stand_in(tmp_path, "mine", f'exec {sys.executable} "$@"')
    assert find_python(os.environ["PATH"], PYTHON=str(tmp_path / "mine")).stdout.strip() == str(tmp_path / "mine")
    refused = find_python(os.environ["PATH"], PYTHON=str(tmp_path / "none"))
    assert refused.returncode != 0
    assert "PYTHON=" in refused.stderr


def test_no_python_at_all_is_one_clear_line(tmp_path: Path) -> None:
    for name in ("dirname", "env"):
        tool = shutil.which(name)
        assert tool is not None
        (tmp_path / name).symlink_to(tool)
    found = find_python(str(tmp_path))
    assert found.returncode != 0
    assert "no usable Python 3.11 or 3.12" in found.stderr


class Unit(configparser.ConfigParser):
    """A systemd unit: case matters, and no interpolation."""

    def __init__(self, name: str) -> None:
        super().__init__(interpolation=None, strict=True)
        self.read(ROOT / "systemd" / name)

    def optionxform(self, optionstr: str) -> str:
        return optionstr


@pytest.mark.parametrize("name", UNITS)
def test_units_do_not_retry_a_wrong_configuration_and_are_hardened(name: str) -> None:
    service = Unit(name)["Service"]
    assert service["RestartPreventExitStatus"] == str(EX_CONFIG)
    assert service["Type"] == "notify"
    assert service["KillMode"] == "mixed"
    assert service["NoNewPrivileges"] == "yes"
    assert service["ProtectSystem"] == "strict"
    assert service["User"] != "root"


def test_the_two_units_differ_in_nothing_but_the_instance() -> None:
    single, template = (Unit(name) for name in UNITS)
    assert single.sections() == template.sections()
    for section in single.sections():
        for key in single[section].keys() | template[section].keys():
            assert (
                single[section][key] in {template[section][key], template[section][key].replace("/%i", "").replace(" %i", "")}
                or key == "ExecStart"
            )
    assert template["Service"]["ExecStart"].replace("%i", "nostraind") == single["Service"]["ExecStart"]


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not on PATH: the service units were not verified by systemd"
)
def test_systemd_accepts_the_units() -> None:
    ran = subprocess.run(["systemd-analyze", "verify", str(ROOT / "systemd" / UNITS[0])], capture_output=True, text=True, check=False)
    assert "Unknown key" not in ran.stderr
