"""Peers that do not answer when a channel is opened to them, or spliced: nobody is waited for for ever, nothing is given up that may still happen."""

from __future__ import annotations

import pytest
import trio

from nostrain.errors import OutcomeUnknown, Unavailable
from nostrain.lightning import channels
from nostrain.lightning.client import ClnLightning
from nostrain.ports.lightning import ChannelOrder, OpenResult, SentResult, SpliceOrder
from nostrain.units import Digest
from tests.lightning.scripted_node import NODE_ID, Request, ScriptedNode, fail, hang, say, send
from tests.simnet.conftest import PATIENCE_S

COIN, TXID, CHANNEL = "aa" * 32, Digest("77" * 32), "66" * 32
ORDER = ChannelOrder(NODE_ID, "93.184.216.34:9735", 60_000, (f"{COIN}:0",), 1000, announce=False)
SOON_S = 0.05


@pytest.fixture
def node(node: ScriptedNode, monkeypatch: pytest.MonkeyPatch) -> ScriptedNode:
    """One with a free coin; patience is short."""
    for limit in ("CONNECT_S", "OPEN_S", "CLEAR_S"):
        monkeypatch.setattr(channels, limit, SOON_S)
    coin = {"txid": COIN, "output": 0, "amount_msat": 500_000_000, "status": "confirmed", "reserved": False, "blockheight": 1}
    node.script("listfunds", say({"outputs": [coin]}))
    node.script("listtransactions", say({"transactions": []}))
    node.script("connect", say({}))
    return node


async def opened(node: ScriptedNode) -> OpenResult:
    with trio.fail_after(PATIENCE_S):
        return await ClnLightning(node.path).open_channel(ORDER)


async def test_an_address_at_which_nobody_answers_is_a_failure(node: ScriptedNode) -> None:
    node.script("connect", hang)
    result = await opened(node)
    assert result.txid is None
    assert "did not answer" in result.reason
    assert "fundchannel" not in node.methods()


async def test_a_node_of_ours_that_dies_while_it_connects_says_nothing_of_the_peer(node: ScriptedNode) -> None:
    node.script("connect", send())
    with pytest.raises(Unavailable):
        await opened(node)


async def test_an_opening_that_cannot_be_cancelled_is_waited_for(node: ScriptedNode) -> None:
    """lightningd may still be connecting, for the peer has gone away again: nothing is reserved then, and nothing to cancel."""
    cancelled = trio.Event()

    async def late(stream: trio.SocketStream, request: Request) -> None:
        await cancelled.wait()
        await say({"txid": TXID, "channel_id": CHANNEL})(stream, request)

    async def nothing(stream: trio.SocketStream, request: Request) -> None:
        await fail(306, "Unknown peer")(stream, request)
        cancelled.set()

    node.script("fundchannel", late)
    node.script("fundchannel_cancel", nothing)
    assert await opened(node) == OpenResult(TXID, CHANNEL)


async def test_one_that_is_cancelled_has_failed(node: ScriptedNode) -> None:
    cancelled = trio.Event()

    async def failing(stream: trio.SocketStream, request: Request) -> None:
        await cancelled.wait()
        await fail(-1, "cancelled")(stream, request)

    async def cancel(stream: trio.SocketStream, request: Request) -> None:
        cancelled.set()
        await say({})(stream, request)

    node.script("fundchannel", failing)
    node.script("fundchannel_cancel", cancel)
    result = await opened(node)
    assert result.txid is None
    assert node.methods().count("fundchannel_cancel") == 1


async def test_one_that_never_ends_is_unknown(node: ScriptedNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "LINGER_S", 2 * SOON_S)
    node.script("fundchannel", hang)
    node.script("fundchannel_cancel", fail(306, "Unknown peer"))
    with pytest.raises(OutcomeUnknown):
        await opened(node)


async def test_a_channel_whose_peer_stays_away_keeps_no_other_withdrawal_waiting(node: ScriptedNode) -> None:
    there = {"peer_id": NODE_ID, "state": "CHANNELD_NORMAL", "channel_id": CHANNEL, "funding_txid": COIN, "htlcs": []}
    node.script("listpeerchannels", say({"channels": [there | {"peer_connected": False}]}))
    result = await ClnLightning(node.path).splice_out(SpliceOrder(CHANNEL, COIN, 20_000))
    assert result == SentResult(None, "its peer is away")
    node.script("listpeerchannels", say({"channels": [there | {"peer_connected": False, "inflight": [{"funding_txid": TXID}]}]}))
    assert await ClnLightning(node.path).splice_out(SpliceOrder(CHANNEL, COIN, 20_000)) == SentResult(TXID), "it was signed before"
