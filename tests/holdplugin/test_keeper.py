"""Two keepers on one database, without processes: who answers what, and what happens when the database cannot be used."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nostrain.errors import LocalProtocolError, RemoteProtocolError
from nostrain.holdplugin.hook import Reply
from nostrain.holdplugin.invoices import Invoice, Refused, Settings, State
from nostrain.holdplugin.keeper import ORPHAN_S, Keeper
from nostrain.holdplugin.schema import open_database
from nostrain.holdplugin.store import Store
from nostrain.units import BlockHeight, Digest
from tests.holdplugin.hold_examples import AMOUNT, DEADLINE, HASH, HEIGHT, MIN_CLTV, NOW, PREIMAGE, invoice, key, offer

RESOLVE = {"result": "resolve", "payment_key": PREIMAGE}


class Side:
    """One process: its own connection, and the replies that it has made."""

    def __init__(self, path: Path, name: str, living: set[str]) -> None:
        self.store = Store(path)
        self.replies: dict[int, Reply] = {}
        self.lines: list[str] = []
        living.add(name)
        self.keeper = Keeper(self.store, name, lambda: frozenset(living - {name}), lambda _, line: self.lines.append(line))
        self.keeper.block(HEIGHT)

    def receive(self, number: int = 0, **terms: Any) -> None:
        """Have it called with an HTLC."""
        self.keeper.receive(offer(number, **terms), lambda reply: self.replies.update({number: reply}))


@pytest.fixture
def living() -> set[str]:
    return set()


@pytest.fixture
def make(tmp_path: Path, living: set[str]) -> Callable[[str], Side]:
    def one(name: str) -> Side:
        return Side(tmp_path / "hold.sqlite", name, living)

    return one


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    clock: list[int] = [NOW]
    monkeypatch.setattr(time, "time", lambda: clock[0])
    return clock


def insert(side: Side, payment_hash: Digest = HASH) -> None:
    side.store.insert(invoice(payment_hash), "lnbcrt…", None, NOW)


def nothing() -> frozenset[tuple[Digest, int]]:
    return frozenset()


@pytest.mark.usefixtures("now")
def test_one_settles_and_the_other_answers(make: Callable[[str], Side]) -> None:
    first, standby = make("first"), make("standby")
    insert(first)
    standby.receive()
    assert not standby.replies
    first.keeper.settle(HASH, PREIMAGE)
    standby.keeper.sweep()
    assert standby.replies == {0: RESOLVE}
    standby.keeper.sweep()
    assert not first.replies


@pytest.mark.usefixtures("now")
def test_parts_in_two_processes(make: Callable[[str], Side]) -> None:
    first, standby = make("first"), make("standby")
    insert(first)
    first.receive(0, amount=60_000)
    standby.receive(1, amount=40_000)
    first.keeper.settle(HASH, PREIMAGE)
    standby.keeper.sweep()
    assert first.replies | standby.replies == {0: RESOLVE, 1: RESOLVE}


@pytest.mark.usefixtures("now")
def test_what_a_dead_process_had_cannot_be_settled_until_it_is_handed_over(make: Callable[[str], Side], living: set[str]) -> None:
    first, standby = make("first"), make("standby")
    insert(first)
    standby.receive()
    living.discard("standby")
    with pytest.raises(Refused, match="not handed them over"):
        first.keeper.settle(HASH, PREIMAGE)
    first.receive()
    first.keeper.settle(HASH, PREIMAGE)
    assert first.replies == {0: RESOLVE}


@pytest.mark.usefixtures("now")
def test_what_lightningd_does_not_have_any_more_is_cancelled_in_time(
    make: Callable[[str], Side], living: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    first, standby = make("first"), make("standby")
    insert(first)
    standby.receive()
    living.discard("standby")
    first.keeper.tick(nothing)
    clock[0] = ORPHAN_S
    first.keeper.tick(lambda: frozenset({(HASH, 0)}))
    assert first.store.get(HASH) is not None

    def silent() -> frozenset[tuple[Digest, int]]:
        raise OSError("lightningd does not answer")

    def strange() -> frozenset[tuple[Digest, int]]:
        raise RemoteProtocolError("listpeerchannels", "no htlcs")

    for live in (silent, strange):
        first.keeper.tick(live)
        assert state(first) is State.ACCEPTED
    first.keeper.tick(nothing)
    assert state(first) is State.CANCELLED


def state(side: Side) -> State:
    found = side.store.get(HASH)
    assert found is not None
    return found.state


@pytest.mark.usefixtures("now")
def test_while_the_database_cannot_be_used_htlcs_wait(make: Callable[[str], Side], monkeypatch: pytest.MonkeyPatch) -> None:
    side = make("first")
    insert(side)

    def broken(*_: object) -> Invoice | None:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(side.store, "change", broken)
        side.receive()
        side.keeper.tick(nothing)
        with pytest.raises(sqlite3.OperationalError):
            side.keeper.cancel(HASH)
        assert not side.replies
    side.keeper.tick(nothing)
    assert state(side) is State.ACCEPTED
    side.keeper.settle(HASH, PREIMAGE)
    assert side.replies == {0: RESOLVE}


@pytest.mark.usefixtures("now")
def test_what_cannot_be_decided_in_time_is_failed_unseen(make: Callable[[str], Side], monkeypatch: pytest.MonkeyPatch) -> None:
    side = make("first")
    insert(side)

    def broken(*_: object) -> Invoice | None:
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(side.store, "change", broken)
    side.receive()
    monkeypatch.setattr(side.store, "expiring", lambda _: ())
    side.keeper.block(BlockHeight(HEIGHT + MIN_CLTV - DEADLINE - 1))
    side.keeper.tick(nothing)
    assert not side.replies
    side.keeper.block(BlockHeight(HEIGHT + MIN_CLTV - DEADLINE))
    side.keeper.tick(nothing)
    assert side.replies[0]["result"] == "fail"


def test_time_and_blocks(make: Callable[[str], Side], now: list[int]) -> None:
    side = make("first")
    insert(side)
    side.receive(0, amount=60_000)
    now[0] = NOW + 60
    side.keeper.tick(nothing)
    assert side.replies[0] == {"result": "fail", "failure_message": "0017"}
    side.receive(1)
    side.keeper.block(BlockHeight(HEIGHT + MIN_CLTV - DEADLINE))
    assert side.replies[1]["result"] == "fail"
    assert state(side) is State.CANCELLED


@pytest.mark.usefixtures("now")
def test_replayed_too_late(make: Callable[[str], Side], living: set[str]) -> None:
    """The invoice was accepted when lightningd went down; when it hands the HTLC over again its time is up."""
    side = make("first")
    insert(side)
    side.receive()
    again = make("again")
    living.discard("first")
    again.receive(height=BlockHeight(HEIGHT + MIN_CLTV - DEADLINE))
    assert again.replies[0]["result"] == "fail"
    assert state(again) is State.CANCELLED


@pytest.mark.usefixtures("now")
def test_an_htlc_of_a_paid_invoice_is_claimed_however_late(make: Callable[[str], Side]) -> None:
    side = make("first")
    insert(side)
    side.receive()
    side.keeper.settle(HASH, PREIMAGE)
    side.replies.clear()
    side.receive(height=BlockHeight(HEIGHT + MIN_CLTV - 1))
    assert side.replies == {0: RESOLVE}


@pytest.mark.usefixtures("now")
def test_the_store_gives_back_what_was_put_in(make: Callable[[str], Side], tmp_path: Path) -> None:
    side = make("first")
    side.store.insert(invoice(), "lnbcrt…", 90, NOW)
    side.receive(height=BlockHeight(HEIGHT - 10), total_msat=AMOUNT)
    side.keeper.settle(HASH, PREIMAGE)
    side.store.configure(Settings(30, 7))
    side.store.close()
    again = Store(tmp_path / "hold.sqlite")
    (row,) = again.rows()
    assert (row.bolt11, row.explicit_min_cltv, row.created_at) == ("lnbcrt…", 90, NOW)
    assert row.settled_at is not None
    taken = row.invoice.htlcs[0]
    assert row.invoice == replace(invoice(), min_cltv=90, state=State.PAID, preimage=PREIMAGE, htlcs=(taken,))
    assert (taken.key, taken.scid, taken.amount_msat, taken.cltv_expiry, taken.state) == (
        key(0),
        "1x1x1",
        AMOUNT,
        HEIGHT + MIN_CLTV,
        State.PAID,
    )
    assert again.settings() == Settings(30, 7)
    assert (tmp_path / "hold.sqlite").stat().st_mode & 0o777 == 0o600
    again.close()


def test_what_is_cleaned_away_leaves_no_gap_in_what_the_other_process_sees(make: Callable[[str], Side], living: set[str]) -> None:
    """A revision is never given twice, or a change would go unseen."""
    side = make("first")
    insert(side)
    side.keeper.cancel(HASH)
    seen = side.store.revision()
    assert side.store.clean(NOW) == 1
    insert(side)
    assert side.store.changed_since(seen) == (HASH,)
    assert living == {"first"}


def test_a_rule_that_refuses_changes_nothing(make: Callable[[str], Side]) -> None:
    side = make("first")
    insert(side)
    with pytest.raises(Refused):
        insert(side)

    def refuse(_: Invoice) -> Invoice:
        raise Refused("no")

    with pytest.raises(Refused):
        side.store.change(HASH, refuse)
    assert side.store.change(Digest("00" * 32), refuse) is None
    assert side.store.unheld(HASH, {"first"}) == ()


def test_a_database_of_somebody_elses_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "hold.sqlite"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE t (x)")
    other.close()
    with pytest.raises(LocalProtocolError, match="not a database of nostrain-hold"):
        open_database(path)
