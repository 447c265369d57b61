"""The look at our Lightning node: silence counts as down, another network ends the daemon, and invoices tell whose node is whose."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import cast

import pytest
import trio
from coincurve import PrivateKey
from trio.testing import MockClock

from nostrain.core.escrow.rows import Payer, PayerLevel
from nostrain.core.inputs import NodeChanged
from nostrain.core.rows import NodeState
from nostrain.core.tables import PayerState
from nostrain.daemon.node_feed import ANSWER_S, Owners, describe, node_feed
from nostrain.errors import ConfigError, Unavailable
from nostrain.ports.lightning import Lightning, NodeFunds, PeerFunds
from nostrain.units import BlockHeight, Digest, EventId, Msat, Pubkey, UnixTime
from nostrain.wire.bolt11 import Bolt11, encode_bolt11
from tests.daemon.world import Toy, Watched, make_ports, until

FUNDS = NodeFunds(BlockHeight(7), None, (PeerFunds("02", True, Msat(5), Msat(6), 30, 29),))


class Scripted:
    """A Lightning node with one answer after the other, the last for ever; None: it hangs."""

    def __init__(self, *answers: NodeFunds | Exception | None) -> None:
        self.answers = list(answers)

    async def funds(self) -> NodeFunds:
        await trio.lowlevel.checkpoint()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is None:
            await trio.sleep_forever()
        if isinstance(answer, Exception):
            raise answer
        return answer


def lightning(*answers: NodeFunds | Exception | None) -> Lightning:
    return cast("Lightning", Scripted(*answers))


async def test_a_node_that_hangs_is_down_and_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock) -> None:
    toy = Toy(monkeypatch)
    runtime = Watched(make_ports(tmp_path), tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(runtime.run)
        nursery.start_soon(node_feed, runtime, lightning(FUNDS, None, FUNDS))
        await until(lambda: len(toy.taken) == 5)
        nursery.cancel_scope.cancel()
    told = [input_ for _, input_ in toy.taken if isinstance(input_, NodeChanged)]
    assert [(one.state, one.reason) for one in told] == [
        ("ready", None),
        ("down", f"it has not answered for {ANSWER_S:.0f} s"),
        ("ready", None),
    ]
    assert told[0] == told[2] == describe(FUNDS, "", {})


async def test_a_node_that_comes_back_on_another_network_ends_the_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    Toy(monkeypatch)
    elsewhere = ConfigError("lightning.network", "regtest", "the node is on 'bitcoin'", "Name that")
    runtime = Watched(make_ports(tmp_path), tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(runtime.run)
        with pytest.raises(ConfigError) as caught:
            await node_feed(runtime, lightning(FUNDS, Unavailable("gone"), elsewhere))
        nursery.cancel_scope.cancel()
    assert caught.value is elsewhere


def payer(payee: str, bolt11: str) -> Payer:
    return Payer(EventId("aa" * 32), Pubkey(payee), levels=(PayerLevel(PayerState.INVOICED, bolt11=bolt11),))


def test_whose_node_is_whose_is_known_from_invoices_also_of_rounds_that_are_gone() -> None:
    key = PrivateKey(secrets.token_bytes(32))
    terms = Bolt11(
        currency="bcrt",
        payment_hash=Digest("11" * 32),
        payment_secret="22" * 32,
        created_at=UnixTime(1_767_225_600),
        amount_msat=Msat(5000),
        description="x",
        expiry_s=60,
    )
    bolt11 = encode_bolt11(terms, key.sign_recoverable)
    owners, node_id = Owners(), key.public_key.format().hex()
    rows = {"payer/a/w": payer("cc" * 32, bolt11), "payer/a/liar": payer("dd" * 32, "lnbcrt1nonsense")}
    assert owners.learn(NodeState(rows)) == {node_id: "cc" * 32}
    known = owners.learn(NodeState())
    assert known == {node_id: "cc" * 32}
    found = NodeFunds(BlockHeight(7), None, (PeerFunds(node_id, True, Msat(5), Msat(6), 30, 29), *FUNDS.peers))
    assert [peer.owner for peer in describe(found, "", known).peers] == ["cc" * 32, None]
