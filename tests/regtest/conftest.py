"""One network of three real nodes for all tests of this folder, and a simnet of the same shape beside it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Final

import pytest

from tests.regtest.networks import NetworkProcess, require_programs, running

FUNDS: Final = {"payer": 2_000_000_000, "payee": 20_000_000, "third": 20_000_000}


@pytest.fixture
async def real(real_network: NetworkProcess) -> AsyncIterator[NetworkProcess]:
    yield real_network
    await real_network.start_all()


@pytest.fixture
async def simulated(simulated_network: NetworkProcess) -> AsyncIterator[NetworkProcess]:
    yield simulated_network
    await simulated_network.start_all()


@pytest.fixture(scope="session")
def real_network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NetworkProcess]:
    yield from running("regtest", tmp_path_factory, FUNDS)


@pytest.fixture(scope="session")
def simulated_network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NetworkProcess]:
    require_programs()
    yield from running("simnet", tmp_path_factory, FUNDS)
