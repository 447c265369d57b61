"""[blobs]: the server's own name, the run that it follows, what it may remove."""

from __future__ import annotations

from pathlib import Path

import pytest

from nostrain.blobs.housekeeping import Retention
from nostrain.blobs.store import LOCAL
from nostrain.config.load import load_config
from nostrain.config.schema import DaemonConfig
from nostrain.daemon.blob_server import advertised, rules
from nostrain.errors import ConfigError
from nostrain.units import Pubkey

SERVER = 'name = "files"\ndata_dir = "data"\n'


def load(folder: Path, text: str, roles: str = 'roles = ["blobs"]\n') -> DaemonConfig:
    path = folder / "nostraind.toml"
    path.write_text(SERVER + roles + text)
    return load_config(path, (), {})


def test_the_servers_own_name(tmp_path: Path) -> None:
    assert load(tmp_path, '[blobs]\nurl = "https://blobs.example"\n').blobs.url == "https://blobs.example"
    for wrong in ("blobs.example", "ftp://blobs.example", "https://blobs.example/?a=b", "https://me:pw@blobs.example"):
        with pytest.raises(ConfigError, match=r"blobs\.url"):
            load(tmp_path, f'[blobs]\nurl = "{wrong}"\n')


def test_our_own_server_is_known_by_its_name_too() -> None:
    bound, name, other = "http://127.0.0.1:3000", "https://blobs.example", "https://other.example/"
    assert advertised((), bound, name) == ((name,), (name,))
    assert advertised((other, f"{name}/"), bound, name) == ((other, f"{name}/"), (f"{name}/",))
    assert advertised((other,), None, name) == ((other,), ())


COORDINATOR = f'[join]\ncoordinator = "{"ab" * 32}"\n'
RELAYS = 'relays = ["wss://relay.example"]\n'


def test_a_server_that_follows_a_run(tmp_path: Path) -> None:
    config = load(tmp_path, f"{RELAYS}{COORDINATOR}[blobs]\nfollow = true\n")
    assert config.in_a_run
    assert not load(tmp_path, RELAYS).in_a_run
    assert LOCAL in rules(config).keep
    for key, text in (
        ("relays", f"{COORDINATOR}[blobs]\nfollow = true\n"),
        ("join.coordinator", f"{RELAYS}[blobs]\nfollow = true\n"),
    ):
        with pytest.raises(ConfigError, match=key):
            load(tmp_path, text)
    with pytest.raises(ConfigError, match=r"blobs\.follow"):
        load(tmp_path, f"{RELAYS}{COORDINATOR}[blobs]\nfollow = true\n", 'roles = ["worker"]\n')


def test_retention(tmp_path: Path) -> None:
    text = "[blobs]\nmax_bytes = 1000\nquota = 2000\n[blobs.retention]\n"
    npub = "npub10elfcs4fr0l0r8af98jlmgdh9c8tcxjvz9qkw038js35mp4dma8qzvjptg"
    config = load(tmp_path, f'{text}idle_days = 7\nmax_bytes = 5000\ngrace_hours = 2\nkeep = ["{npub}"]\n')
    kept = Pubkey("7e7e9c42a91bfef19fa929e5fda1b72e0ebc1a4c1141673e2794234d86addf4e")
    assert rules(config) == Retention(7 * 86400, 5000, 7200, frozenset({kept}))
    assert rules(load(tmp_path, "")) == Retention(keep=frozenset())
    for key, wrong in (
        ("max_bytes", "max_bytes = 999"),
        ("idle_days", "idle_days = -1"),
        ("keep", f'keep = ["{kept}"]'),
        ("keep", 'idle_days = 1\nkeep = ["nobody"]'),
    ):
        with pytest.raises(ConfigError, match=rf"blobs\.retention\.{key}"):
            load(tmp_path, text + wrong)
