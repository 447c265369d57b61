"""Payments to our node: ours are told once, in order, from where the journal has them; other programs' are passed over."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import cast

import pytest
import trio
from trio.testing import MockClock

from nostrain.core.escrow.rows import Income as Told
from nostrain.core.inputs import InvoicePaid
from nostrain.core.rows import NodeState
from nostrain.core.treasury.liquidity_rows import LightningNode
from nostrain.daemon.income_feed import IncomeFeed, read
from nostrain.daemon.node_feed import POLL_S
from nostrain.daemon.runtime import Runtime
from nostrain.daemon.tickets import ticket_label, ticket_of
from nostrain.devnet.simnet.invoices import MAX_LABEL
from nostrain.errors import Unavailable
from nostrain.ports.lightning import Income, Lightning
from nostrain.units import Digest, EventId, Msat, Pubkey
from tests.daemon.world import make_identity, make_ports

ROUND, WORKER = EventId("aa" * 32), Pubkey("bb" * 32)
LABEL = ticket_label(ROUND, WORKER, "cc")
SHARE = "nostrain: shares of the fees of run 0123456789abcdef"
NODE = LightningNode("ready", None, node_id="02ours")


def paid(index: int, label: str = LABEL, description: str = "") -> Income:
    return Income(index, label, description, Digest(f"{index:064x}"), Msat(7))


class Till:
    """A Lightning node with these payments; `asked` are the numbers after which it was asked."""

    def __init__(self, *incomes: Income) -> None:
        self.incomes, self.asked, self.down = list(incomes), list[int](), False

    async def income(self, after: int) -> Income | None:
        await trio.lowlevel.checkpoint()
        if self.down:
            raise Unavailable("gone")
        self.asked.append(after)
        return next((one for one in self.incomes if one.index > after), None)


class Listener(Runtime):
    """A runtime that only keeps what it is told."""

    def __init__(self, folder: Path, *rows: tuple[str, LightningNode | Told]) -> None:
        super().__init__(make_ports(folder), make_identity(folder), state=NodeState(dict(rows)))
        self.told: list[object] = []

    async def put(self, input_: object) -> None:
        await trio.lowlevel.checkpoint()
        self.told.append(input_)


def feed(listener: Listener, till: Till) -> IncomeFeed:
    return IncomeFeed(listener, cast("Lightning", till))


def test_what_is_ours() -> None:
    assert read("02", paid(1)) == InvoicePaid("02", 1, Digest(f"{1:064x}"), Msat(7), ROUND, WORKER)
    assert read("02", paid(2, "offer", SHARE)) == InvoicePaid("02", 2, Digest(f"{2:064x}"), Msat(7), run="0123456789abcdef")
    assert read("02", paid(3, "coffee", "nostrain ticket")) is None
    assert ticket_of(LABEL) == (ROUND, WORKER)
    assert len(ticket_label(ROUND, WORKER, "cc" * 16)) <= MAX_LABEL
    known = LABEL.removeprefix("nostrain-ticket/")
    for label in (
        "",
        "nostrain-aabb",
        "nostrain-ticket/",
        f"nostrain-ticket/{ROUND}/{WORKER}/1",
        f"nostrain-ticket/é/{known}",
        f"x/{known}",
    ):
        assert ticket_of(label) is None


async def test_it_goes_on_where_the_journal_is_and_reads_nothing_twice(tmp_path: Path) -> None:
    till = Till(paid(1), paid(2), paid(3, "coffee"), paid(4))
    listener = Listener(tmp_path, ("lightning", NODE), ("income", Told("02ours", 1)))
    looking = feed(listener, till)
    await looking.look()
    await looking.look()
    assert [cast("InvoicePaid", one).index for one in listener.told] == [2, 4]
    assert till.asked == [1, 2, 3, 4, 4]


@pytest.mark.parametrize(("row", "indexes"), [(NODE, [1]), (LightningNode("down"), [])])
async def test_another_node_counts_from_the_beginning_and_one_that_is_not_heard_of_is_not_asked(
    tmp_path: Path, row: LightningNode, indexes: list[int]
) -> None:
    listener = Listener(tmp_path, ("lightning", row), ("income", Told("02another", 5)))
    await feed(listener, Till(paid(1))).look()
    assert [cast("InvoicePaid", one).index for one in listener.told] == indexes


async def test_a_node_that_goes_away_is_asked_again_and_said_once(
    tmp_path: Path, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    till = Till(paid(1))
    till.down = True
    listener = Listener(tmp_path, ("lightning", NODE))
    with caplog.at_level(logging.WARNING, "nostrain.feeds"), trio.move_on_after(10 * POLL_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(feed(listener, till).run)
            await trio.sleep(3.5 * POLL_S)
            assert listener.told == []
            till.down = False
            await trio.sleep(2 * POLL_S)
            nursery.cancel_scope.cancel()
    assert len(listener.told) == 1
    assert [record.message for record in caplog.records] == ["payments to us: gone"]
