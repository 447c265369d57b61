"""Oracles of one root secret, closed when their test ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nostrain.keys.oracle import DlcOracle
from nostrain.keys.store import RootSecret
from nostrain.units import UnixTime

ROOT = RootSecret(bytes(range(32)))
MATURITY = UnixTime(1_700_000_000)
EVENT = f"nostrain/1/{'a' * 64}/{'b' * 64}/0"


@pytest.fixture
def opened() -> Iterator[Callable[..., DlcOracle]]:
    """Opens oracles and closes them when the test ends, as the end of a process would."""
    oracles: list[DlcOracle] = []

    def make(folder: Path, root: RootSecret = ROOT) -> DlcOracle:
        oracles.append(DlcOracle(root, folder))
        return oracles[-1]

    yield make
    for oracle in oracles:
        oracle.close()
