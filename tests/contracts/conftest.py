"""Networks for the contract of `ports.lightning.Lightning`, one of each kind for all tests: for hold invoices, and some whose first node spends coins."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import AsyncIterator, Iterator

import pytest
import trio

from nostrain.lightning.client import ClnLightning
from nostrain.ports.lightning import ChannelFunds, Coin
from nostrain.testing.lightning import FakeLedger, FakeLightning
from nostrain.units import BlockHeight, Digest, Msat
from tests.contracts.chest import Chest
from tests.contracts.holding import Secret
from tests.contracts.lightning_worlds import FUNDS, FakeWorld, NetworkWorld, RegtestWorld, World, by_rune
from tests.regtest.networks import NetworkProcess, running
from tests.regtest.proxy import LossyProxy

BY_RUNE = " by rune"


@pytest.fixture(scope="session")
def hold_simnet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NetworkProcess]:
    yield from running("simnet", tmp_path_factory, FUNDS)


@pytest.fixture(scope="session")
def hold_mainnet_like(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NetworkProcess]:
    yield from running("regtest", tmp_path_factory, FUNDS, hold=True)


@pytest.fixture(scope="session")
def hold_regtest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NetworkProcess]:
    yield from running("regtest", tmp_path_factory, FUNDS, "--regtest-cltv", hold=True)


@pytest.fixture(params=["fake", "simnet", "simnet by rune", "mainnet_like", "mainnet_like by rune", "regtest"])
def network(request: pytest.FixtureRequest) -> NetworkProcess | None:
    """Of hold invoices. None: the fake ledger. The last three are real nodes, with lightningd's CLTVs and HTLC slots of mainnet and of regtest."""
    return None if request.param == "fake" else request.getfixturevalue(f"hold_{request.param.removesuffix(BY_RUNE)}")


@pytest.fixture(params=["simnet", "mainnet_like", "regtest"])
def nodes(request: pytest.FixtureRequest) -> NetworkProcess:
    """As `network`, without the fake: for what lightningd has and the port has not."""
    return request.getfixturevalue(f"hold_{request.param}")


@pytest.fixture
async def world(request: pytest.FixtureRequest, network: NetworkProcess | None) -> AsyncIterator[World]:
    if network is None:
        yield FakeWorld()
    elif request.node.callspec.params["network"].endswith(BY_RUNE):
        async with by_rune(network) as found:
            yield found
        await network.start_all()
    elif network.kind == "simnet":
        yield NetworkWorld(network)
        await network.start_all()
    else:
        proxy = LossyProxy(network.folder / "proxy", network.socket("payer"))
        async with trio.open_nursery() as nursery:
            await nursery.start(proxy.serve)
            yield RegtestWorld(network, proxy)
            nursery.cancel_scope.cancel()
        await network.start_all()


@pytest.fixture
def secret(request: pytest.FixtureRequest) -> Secret:
    """Preimages and hashes of this test's own."""
    numbers = itertools.count()

    def draw() -> tuple[str, Digest]:
        preimage = hashlib.sha256(f"{request.node.nodeid}/{next(numbers)}".encode()).digest()
        return preimage.hex(), Digest(hashlib.sha256(preimage).hexdigest())

    return draw


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
    chest: Chest
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
