"""One network of three real nodes for all tests of this folder, and a simnet of the same shape beside it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest

from tests.regtest.networks import NetworkProcess, require_programs

FUNDS: Final = {"payer": 2_000_000_000, "payee": 20_000_000, "third": 20_000_000}


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NetworkProcess]:
    require_programs()
    network = NetworkProcess("regtest", tmp_path_factory.mktemp("net"), FUNDS)
    yield network
    assert network.stop() == 0


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NetworkProcess]:
    require_programs()
    network = NetworkProcess("simnet", tmp_path_factory.mktemp("sim"), FUNDS)
    yield network
    assert network.stop() == 0
