"""Networks whose first node spends coins and channels: one of each kind for all tests that do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import trio

from nostrain.lightning.client import ClnLightning
from nostrain.ports.lightning import ChannelFunds, Coin
from nostrain.testing.lightning import FakeLedger, FakeLightning
from nostrain.units import BlockHeight, Msat
from tests.contracts.chest import Chest
from tests.contracts.lightning_worlds import FUNDS
from tests.regtest.networks import NetworkProcess, running
from tests.regtest.proxy import LossyProxy


@pytest.fixture(scope="session")
def coin_simnet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NetworkProcess]:
    yield from running("simnet", tmp_path_factory, FUNDS)


@pytest.fixture(scope="session")
def coin_regtest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NetworkProcess]:
    yield from running("regtest", tmp_path_factory, FUNDS, hold=True)


@pytest.fixture(params=["fake", "simnet", "regtest"])
def coin_network(request: pytest.FixtureRequest) -> NetworkProcess | None:
    """None: the fake ledger. Not in an async fixture: pytest-trio loses the reason of what is skipped there."""
    return None if request.param == "fake" else request.getfixturevalue(f"coin_{request.param}")


@pytest.fixture
async def chest(coin_network: NetworkProcess | None) -> AsyncIterator[Chest]:
    if coin_network is None:
        ledger = FakeLedger(lambda: chest.height, balances=dict(FUNDS))
        chest = Chest(FakeLightning(ledger, "payer"), "payee")
        chest.ledger = ledger
        ledger.wallet.channels["payer"] = ChannelFunds("ab" * 32, "cd" * 32, Msat(300_000_000))
        ledger.wallet.coins["payer"] = (Coin(f"{'ab' * 32}:0", Msat(900_000_000), BlockHeight(1)),)
        ledger.wallet.coins["payer"] += (Coin(f"{'cd' * 32}:1", Msat(800_000_000), BlockHeight(1)),)
        yield chest
        return
    network = coin_network
    payee_id = (await ClnLightning(network.socket("payee")).info()).id
    if network.kind == "simnet":
        chest = Chest(ClnLightning(network.socket("payer"), coins=True), payee_id)
        chest.network = network
        await chest.renew()
        yield chest
    else:
        proxy = LossyProxy(network.folder / "proxy", network.socket("payer"))
        async with trio.open_nursery() as nursery:
            await nursery.start(proxy.serve)
            chest = Chest(ClnLightning(proxy.path, coins=True), payee_id)
            chest.network, chest.proxy = network, proxy
            await chest.renew()
            yield chest
            nursery.cancel_scope.cancel()
    await chest.mine()
    await network.start_all()
