"""The simnet beside lightningd where channels are opened and money is taken out: the same error codes, and no field that lightningd has not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trio

from tests.regtest.conftest import FUNDS
from tests.regtest.networks import Failure, ask, require_programs, running
from tests.regtest.test_differential import NOBODY, ZERO, Pair, differences

pytestmark = pytest.mark.regtest
CAPACITY_SAT, SENT_SAT = 40_000, 15_000
SEEN_S = 30


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Networks of this file's own: the other tests of this folder count what is in the channels, and here that changes."""
    require_programs()
    network = contextmanager(running)
    with network("simnet", tmp_path_factory, FUNDS) as simulated, network("regtest", tmp_path_factory, FUNDS) as real:
        yield Pair(simulated, real)


async def ids(pair: Pair, name: str) -> list[str]:
    return [answer["id"] for answer in await pair.ask(name, "getinfo")]


async def coins(pair: Pair, node: str = "payer") -> list[str]:
    """The largest coin of each that can be spent, once there is one."""
    found = []
    for network in pair.networks:
        with trio.fail_after(SEEN_S):
            while True:
                outputs = (await ask(network.socket(node), "listfunds", {}))["outputs"]
                free = [one for one in outputs if one["status"] == "confirmed" and not one["reserved"]]
                if free:
                    break
                await trio.sleep(0.1)  # a wallet sees a block a moment later
        largest = max(free, key=lambda one: one["amount_msat"])
        found.append(f"{largest['txid']}:{largest['output']}")
    return found


async def outputs_agree(pair: Pair, node: str) -> None:
    """What `listfunds` says of coins: each of the simnet's is as one of lightningd's of its kind, of which other tests have left some too."""
    simulated, real = [(await ask(network.socket(node), "listfunds", {}))["outputs"] for network in pair.networks]
    for coin in simulated:
        found = [differences(coin, other) for other in real if (other["status"], other["reserved"]) == (coin["status"], coin["reserved"])]
        assert [] in found, (coin, found)


async def mine(pair: Pair, blocks: int = 1) -> None:
    for network in pair.networks:
        await network.control("mine", blocks=blocks)


def named(outpoints: list[str], **params: Any) -> dict[str, Any]:
    """Parameters with each network's own coin: a value that differs is a list of two."""
    return {"utxos": [[outpoint] for outpoint in outpoints], **params}


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("connect", {"id": NOBODY}),
        ("connect", {"id": NOBODY, "host": "127.0.0.1", "port": 9}),
        ("fundchannel", {"id": NOBODY, "amount": CAPACITY_SAT}),
        ("fundchannel", {"id": NOBODY, "amount": "nonsense"}),
        ("fundchannel_cancel", {"id": NOBODY}),
        ("listtransactions", {}),
        ("newaddr", {"addresstype": "p2tr"}),
        ("txprepare", {"outputs": ({"nonsense": "15000sat"},)}),
        ("txdiscard", {"txid": ZERO}),
        ("signpsbt", {"psbt": "nonsense"}),
        ("sendpsbt", {"psbt": "nonsense"}),
        ("reserveinputs", {"psbt": "nonsense"}),
        ("spliceout", {"channel": ZERO, "amount": "10000sat"}),
    ],
)
async def test_what_cannot_be_or_changes_nothing(pair: Pair, method: str, params: dict[str, object]) -> None:
    await pair.ask("payer", method, **params)


async def test_a_channel_from_its_coin_to_its_block(pair: Pair) -> None:
    peers = await ids(pair, "payee")
    coin = await coins(pair)
    order = named(coin, id=peers, amount=CAPACITY_SAT, announce=False, feerate="1000perkb")
    await pair.ask("payer", "connect", id=peers)
    await pair.ask("payer", "fundchannel", **(order | {"amount": 50_000_000}))
    await pair.ask("payer", "fundchannel", **(order | {"amount": 200}))
    await pair.ask("payer", "fundchannel", **(order | {"utxos": [[f"{ZERO}:0"], [f"{ZERO}:0"]]}))
    made = await pair.ask("payer", "fundchannel", **order)
    assert not any(isinstance(answer, Failure) for answer in made), made
    await pair.ask("payer", "fundchannel", **order)
    await pair.ask("payer", "fundchannel_cancel", id=peers)
    await outputs_agree(pair, "payer")
    listed = [answer["channels"] for answer in await pair.ask("payer", "listpeerchannels", id=peers)]
    waiting = [
        channel for channels, answer in zip(listed, made, strict=True) for channel in channels if channel["funding_txid"] == answer["txid"]
    ]
    assert [channel["state"] for channel in waiting] == ["CHANNELD_AWAITING_LOCKIN"] * 2
    assert not any("short_channel_id" in channel for channel in waiting)
    sent = [answer["transactions"] for answer in await pair.ask("payer", "listtransactions")]
    for transactions, outpoint, channel in zip(sent, coin, made, strict=True):
        (spender,) = [one for one in transactions if f"{one['inputs'][0]['txid']}:{one['inputs'][0]['index']}" == outpoint]
        assert (spender["hash"], spender["blockheight"]) == (channel["txid"], 0)
    await mine(pair)
    await coins(pair)
    await pair.ask("payer", "fundchannel", **order)


async def test_a_withdrawal_from_its_making_to_its_block(pair: Pair) -> None:
    addresses = [answer["p2tr"] for answer in await pair.ask("third", "newaddr", addresstype="p2tr")]
    coin = await coins(pair)
    outputs = [[{address: f"{SENT_SAT}sat"}] for address in addresses]
    order = named(coin, outputs=outputs, feerate="1000perkb")
    await pair.ask("payer", "txprepare", **(order | {"outputs": [[{address: "90000000sat"}] for address in addresses]}))
    made = await pair.ask("payer", "txprepare", **order)
    assert not any(isinstance(answer, Failure) for answer in made), made
    await pair.ask("payer", "txprepare", **order)
    await pair.ask("payer", "txdiscard", txid=[answer["txid"] for answer in made])
    await pair.ask("payer", "signpsbt", psbt=[answer["psbt"] for answer in made])
    made = await pair.ask("payer", "txprepare", **order)
    psbts = [answer["psbt"] for answer in made]
    await pair.ask("payer", "reserveinputs", psbt=psbts)
    signed = [answer["signed_psbt"] for answer in await pair.ask("payer", "signpsbt", psbt=psbts)]
    for _ in range(2):
        sent = await pair.ask("payer", "sendpsbt", psbt=signed)
        assert [answer["txid"] for answer in sent] == [answer["txid"] for answer in made]
    await outputs_agree(pair, "third")
    await outputs_agree(pair, "payer")
    await mine(pair)
    await coins(pair)
    await pair.ask("payer", "sendpsbt", psbt=signed)
    await pair.ask("payer", "signpsbt", psbt=signed)
    await pair.ask("payer", "reserveinputs", psbt=signed)


async def test_a_splice_from_its_asking_to_its_block(pair: Pair) -> None:
    peers = await ids(pair, "third")
    before = [answer["channels"][0] for answer in await pair.ask("payer", "listpeerchannels", id=peers)]
    channel_ids = [channel["channel_id"] for channel in before]
    addresses = [answer["p2tr"] for answer in await pair.ask("third", "newaddr", addresstype="p2tr")]
    await pair.ask("payer", "spliceout", channel=channel_ids, amount="10000sat", destination=addresses)
    made = await pair.ask("payer", "spliceout", channel=channel_ids, amount="10000sat")
    assert not any(isinstance(answer, Failure) for answer in made), made
    waiting = [answer["channels"][0] for answer in await pair.ask("payer", "listpeerchannels", id=peers)]
    assert [channel["state"] for channel in waiting] == ["CHANNELD_AWAITING_SPLICE"] * 2
    assert [channel["inflight"][-1]["funding_txid"] for channel in waiting] == [answer["txid"] for answer in made]
    assert [channel["funding_txid"] for channel in waiting] == [channel["funding_txid"] for channel in before]
    await outputs_agree(pair, "payer")
    await mine(pair)
    for network, peer, answer in zip(pair.networks, peers, made, strict=True):
        with trio.fail_after(SEEN_S):
            while True:
                (channel,) = (await ask(network.socket("payer"), "listpeerchannels", {"id": peer}))["channels"]
                if channel["funding_txid"] == answer["txid"]:
                    break
                await trio.sleep(0.1)  # both ends have to see the block
    after = [answer["channels"][0] for answer in await pair.ask("payer", "listpeerchannels", id=peers)]
    assert [channel["channel_id"] for channel in after] == channel_ids
    assert all("inflight" not in channel and channel["state"] == "CHANNELD_NORMAL" for channel in after)
