"""The file with the rune: who may read it, and that nothing of it is repeated."""

from __future__ import annotations

from pathlib import Path

import pytest

from nostrain.config.schema import LightningConfig
from nostrain.daemon.own_node import open_rpc, read_rune
from nostrain.errors import ConfigError
from nostrain.lightning.commando import Commando
from nostrain.lightning.rpc import ClnRpc

TEXT = "x_-Y" * 11 + "=="


def file(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "rune"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_rune_is_read_from_its_owners_file(tmp_path: Path) -> None:
    assert read_rune(file(tmp_path, TEXT + "\n")).text == TEXT


@pytest.mark.parametrize(("text", "mode"), [(TEXT, 0o640), (TEXT, 0o604), ("", 0o600), ('{"rune": "x"}', 0o600), (TEXT * 400, 0o600)])
def test_what_is_no_secret_or_no_rune_is_refused_and_not_repeated(tmp_path: Path, text: str, mode: int) -> None:
    with pytest.raises(ConfigError) as refused:
        read_rune(file(tmp_path, text, mode))
    assert refused.value.key == "lightning.rune_file"
    assert TEXT not in str(refused.value)


def test_a_file_that_is_not_there_is_the_operators_to_mend(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_rune(tmp_path / "rune")


async def test_the_way_to_the_node_is_the_configured_one(tmp_path: Path) -> None:
    rune = file(tmp_path, TEXT)
    async with open_rpc(LightningConfig(node=f"{'02' * 33}@127.0.0.1:9735", rune_file=str(rune))) as rpc:
        assert isinstance(rpc, Commando)
    async with open_rpc(LightningConfig(socket="/rpc")) as rpc:
        assert isinstance(rpc, ClnRpc)
    async with open_rpc(LightningConfig()) as rpc:
        assert rpc is None
