"""[blobs]: the server's own name."""

from __future__ import annotations

from pathlib import Path

import pytest

from nostrain.config.load import load_config
from nostrain.daemon.compose import advertised
from nostrain.errors import ConfigError

SERVER = 'name = "files"\ndata_dir = "data"\nroles = ["blobs"]\n'


def load(folder: Path, text: str) -> object:
    path = folder / "nostraind.toml"
    path.write_text(SERVER + text)
    return load_config(path, (), {})


def test_the_servers_own_name(tmp_path: Path) -> None:
    assert load(tmp_path, '[blobs]\nurl = "https://blobs.example"\n').blobs.url == "https://blobs.example"  # type: ignore[attr-defined]
    for wrong in ("blobs.example", "ftp://blobs.example", "https://blobs.example/?a=b", "https://me:pw@blobs.example"):
        with pytest.raises(ConfigError, match=r"blobs\.url"):
            load(tmp_path, f'[blobs]\nurl = "{wrong}"\n')


def test_which_servers_are_named_to_others() -> None:
    bound, name, other = "http://127.0.0.1:3000", "https://blobs.example", "https://other.example/"
    assert advertised((), None, name) == ((), ())
    assert advertised((), bound) == ((bound,), (bound,))
    assert advertised((), bound, name) == ((name,), (name,))
    assert advertised((other,), bound, name) == ((other,), ())
    assert advertised((other, f"{name}/"), bound, name) == ((other, f"{name}/"), (f"{name}/",))
    assert advertised((other, bound), bound) == ((other, bound), (bound,))
