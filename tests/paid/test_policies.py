"""What the daemon does with its node's money by itself, end to end: journal, machines, runners and client, over the simnet and real nodes; killed
after its node did what was asked, and before anybody wrote that down.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import trio

from nostrain.core.effects import Effect, OpenChannel, Outcome, PrepareWithdrawal, SendWithdrawal, SpliceOut
from nostrain.core.identity import Identity
from nostrain.core.inputs import Received
from nostrain.core.tables import OpeningState, WithdrawalState
from nostrain.core.treasury.opening_rows import Opening
from nostrain.core.treasury.policies import ChannelPolicy, WithdrawPolicy
from nostrain.core.treasury.withdrawal_rows import Withdrawal
from nostrain.daemon import node_feed as feed
from nostrain.daemon.ports import Ports
from nostrain.daemon.runners import perform
from nostrain.daemon.runtime import Runtime
from nostrain.daemon.wallet import read_wallet
from nostrain.journal.sqlite import SqliteJournal
from nostrain.lightning.client import ClnLightning
from nostrain.protocol.messages import Message, NodeAddress
from nostrain.testing.steps import SimulatedCrash
from nostrain.units import Msat, Pubkey
from tests.core.actors import EXAMPLES, changed
from tests.daemon.world import make_ports
from tests.docs.examples import COORDINATOR, WORKERS
from tests.regtest.networks import NetworkProcess, ask, running

FUNDS = {"hub": 100_000_000, "peer": 600_000_000}
"""The hub's channel does not carry a round of A_ROUND_MSAT."""
A_ROUND_MSAT = 120_000_000
SAT = 1_000
PATIENCE_S = 60
CHAIN = (OpenChannel, SpliceOut, PrepareWithdrawal, SendWithdrawal)
CHANNELS = ChannelPolicy(
    to="enrolled",
    first_rounds=1,
    rounds=32,
    total_msat=Msat(300_000 * SAT),
    day_msat=Msat(300_000 * SAT),
    reserve_msat=Msat(50_000 * SAT),
    max_channels=2,
    minconf=1,
    feerate_perkb=1000,
    commitment_feerate_perkb=10_000,
    announce=False,
    private=True,
)


@pytest.fixture(scope="module")
def simnet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NetworkProcess]:
    yield from running("simnet", tmp_path_factory, FUNDS)


@pytest.fixture(scope="module")
def regtest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NetworkProcess]:
    yield from running("regtest", tmp_path_factory, FUNDS)


@pytest.fixture(params=["simnet", "regtest"])
def network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> NetworkProcess:
    monkeypatch.setattr(feed, "POLL_S", 0.05)
    return request.getfixturevalue(request.param)


class Lives:
    """A daemon on one journal, and its deaths: `deadly` are the effects after which it dies, before their outcome is written, once each."""

    def __init__(self, folder: Path, socket: Path, identity: Identity, *deadly: type[Effect]) -> None:
        self.folder, self.socket, self.identity = folder, socket, identity
        self.deadly, self.done = list(deadly), []  # type: list[type[Effect]], list[Effect]

    async def perform(self, effect: Effect, ports: Ports) -> Outcome:
        """Only what touches the chain is done."""
        if not isinstance(effect, CHAIN):
            await trio.sleep_forever()
        outcome = await perform(effect, ports)
        self.done.append(effect)
        if type(effect) in self.deadly:
            self.deadly.remove(type(effect))
            raise SimulatedCrash(type(effect).__name__)
        return outcome

    @asynccontextmanager
    async def life(self) -> AsyncIterator[Runtime]:
        """From the start to the end of the block, or to its death."""
        lightning = ClnLightning(self.socket, network="regtest", coins=True)
        with SqliteJournal.open(self.folder / "journal.sqlite") as journal:
            ports = make_ports(self.folder, journal=journal, lightning=lightning)
            runtime = Runtime(ports, self.identity, runner=self.perform)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(runtime.run)
                nursery.start_soon(feed.node_feed, runtime, lightning)
                yield runtime
                nursery.cancel_scope.cancel()

    async def until(self, condition: Callable[[Runtime], bool], *messages: Message) -> Runtime:
        """As many lives as it takes; in each it hears the messages again."""
        with trio.fail_after(PATIENCE_S):
            while True:
                try:
                    async with self.life() as runtime:
                        for message in messages:
                            await runtime.put(Received(message))
                        while not condition(runtime):
                            await runtime.changed.wait()
                        return runtime
                except* SimulatedCrash:
                    pass


def coordinator() -> Identity:
    return Identity(COORDINATOR.pubkey, "coordinator", ("coordinator",), "/work", channels=CHANNELS)


async def test_a_channel_is_opened_once_though_the_daemon_dies_before_it_knows(network: NetworkProcess, tmp_path: Path) -> None:
    peer = await ask(network.socket("peer"), "getinfo", {})
    bound = peer["binding"][0]["port"] if peer["binding"] else 9735
    before = await ask(network.socket("hub"), "listpeerchannels", {})
    lives = Lives(tmp_path, network.socket("hub"), coordinator(), OpenChannel)
    schedule = msgspec.structs.replace(EXAMPLES.manifest.settlement, pool_msat=Msat(EXAMPLES.manifest.settlement.slots * A_ROUND_MSAT))
    manifest = changed("manifest", COORDINATOR, settlement=schedule)
    asked = changed("enrolment worker 0", WORKERS[0], 60, run=manifest.id, node=NodeAddress(peer["id"], f"127.0.0.1:{bound}"))
    key = f"opening/{WORKERS[0].pubkey}"

    def opened(runtime: Runtime) -> bool:
        row = runtime.state.rows.get(key)
        return isinstance(row, Opening) and row.state is OpeningState.OPENED

    state = (await lives.until(opened, manifest, asked)).state
    assert [type(effect) for effect in lives.done] == [OpenChannel, OpenChannel], "asked for twice, done once"
    row = state.rows[key]
    assert isinstance(row, Opening)
    after = await ask(network.socket("hub"), "listpeerchannels", {})
    new = {one["channel_id"] for one in after["channels"]} - {one["channel_id"] for one in before["channels"]}
    assert new == {row.channel_id}
    (made,) = [one for one in after["channels"] if one["channel_id"] == row.channel_id]
    assert (made["funding_txid"], made["total_msat"], made["peer_id"]) == (row.txid, row.capacity_msat, peer["id"])
    wallet = await read_wallet(network.socket("hub"), state)
    assert wallet.opened_msat == row.capacity_msat
    assert {one.owner for one in wallet.channels if one.peer_id == peer["id"]} == {WORKERS[0].pubkey}
    await network.control("mine", blocks=6)


async def test_rewards_go_on_chain_once_though_the_daemon_dies_at_every_step(network: NetworkProcess, tmp_path: Path) -> None:
    """600,000 sat in the peer's channel: all but `keep` come into its wallet, and from there to the hub's address."""
    made = await ask(network.socket("hub"), "newaddr", {"addresstype": "p2tr"})
    address = made["p2tr"]
    policy = WithdrawPolicy(address, Msat(400_000 * SAT), Msat(50_000 * SAT), Msat(30_000 * SAT), minconf=1, feerate_perkb=1000)
    identity = Identity(Pubkey("ab" * 32), "worker", ("worker",), "/work", withdraw=policy)
    lives = Lives(tmp_path, network.socket("peer"), identity, SpliceOut, SendWithdrawal)

    def reached(*states: WithdrawalState) -> Callable[[Runtime], bool]:
        def check(runtime: Runtime) -> bool:
            row = runtime.state.rows.get("withdrawal")
            return isinstance(row, Withdrawal) and row.state in states

        return check

    spliced = await lives.until(reached(WithdrawalState.SPLICED))
    await network.control("mine", blocks=1)
    done = await lives.until(reached(WithdrawalState.SENT))
    kinds = [type(effect) for effect in lives.done]
    assert kinds == [SpliceOut, SpliceOut, PrepareWithdrawal, SendWithdrawal, SendWithdrawal]
    first, row = spliced.state.rows["withdrawal"], done.state.rows["withdrawal"]
    assert isinstance(first, Withdrawal)
    assert isinstance(row, Withdrawal)
    assert row.number == 1
    await network.control("mine", blocks=1)
    listed = await ask(network.socket("peer"), "listtransactions", {})
    mine = {one["hash"]: one for one in listed["transactions"]}
    assert {first.splice_txid, row.txid} <= mine.keys()
    assert row.amount_msat in {output["amount_msat"] for output in mine[row.txid]["outputs"]}
    with trio.fail_after(PATIENCE_S):
        while True:
            got = await ask(network.socket("hub"), "listfunds", {})
            here = [output["amount_msat"] for output in got["outputs"] if output["address"] == address]
            if here:
                break
            await trio.sleep(0.1)
    assert here == [row.amount_msat], "once"
    with SqliteJournal.open(tmp_path / "journal.sqlite") as journal:
        assert [(total.kind, total.entries, total.sum_msat) for total in journal.totals()] == [("withdrawn", 1, row.amount_msat)]
    left = max((await ClnLightning(network.socket("peer")).funds()).peers, key=lambda one: one.spendable_msat)
    assert 0 < left.spendable_msat < 2 * policy.keep_msat, "the reserve is smaller now"
    assert msgspec.json.encode(await read_wallet(network.socket("peer"), done.state))
