"""What every journal promises (ports.journal): the fake and the real one run the same suite."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nostrain.journal import SqliteJournal
from nostrain.ports.journal import Batch, Journal
from nostrain.protocol.ledger import EntryKind, LedgerEntry, LedgerTotal
from nostrain.testing.journal import MemoryJournal
from nostrain.units import Digest, EventId, Msat, Pubkey, UnixTime


@pytest.fixture(params=["memory", "sqlite", "sqlite, not power-safe"])
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Journal]:
    if request.param == "memory":
        yield MemoryJournal()
        return
    with SqliteJournal.open(tmp_path / "journal.db", power_safe="not" not in request.param) as real:
        yield real


def test_a_new_journal_is_empty(journal: Journal) -> None:
    assert journal.load() == {}
    assert list(journal.inputs()) == []


def test_rows_are_written_replaced_and_deleted(journal: Journal) -> None:
    journal.commit(Batch(inputs=(), rows={"a": b"1", "b": b"", "c": b"\x00\xff" * 5000}))
    journal.commit(Batch(inputs=(), rows={"a": b"2", "b": None, "missing": None}))
    assert journal.load() == {"a": b"2", "c": b"\x00\xff" * 5000}


def test_inputs_are_numbered_from_one_in_order(journal: Journal) -> None:
    journal.commit(Batch(inputs=(b"x", b"y"), rows={}))
    journal.commit(Batch(inputs=(), rows={"a": b"1"}))
    journal.commit(Batch(inputs=(b"x",), rows={}))
    assert list(journal.inputs()) == [(1, b"x"), (2, b"y"), (3, b"x")]
    assert list(journal.inputs(2)) == [(2, b"y"), (3, b"x")]
    assert list(journal.inputs(4)) == []


def test_the_log_may_grow_while_it_is_read(journal: Journal) -> None:
    journal.commit(Batch(inputs=tuple(b"%d" % number for number in range(600)), rows={}))
    reader = iter(journal.inputs())
    first = next(reader)
    journal.commit(Batch(inputs=(b"late",), rows={}))
    assert [first, *reader][-1] == (601, b"late")


def entry(number: int, kind: EntryKind = "settled", run: str = "aa") -> LedgerEntry:
    ids = (EventId(run * 32), number, EventId(f"{number:064x}"))
    return LedgerEntry(UnixTime(number), *ids, kind, Msat(number), Digest(f"{number:064x}"), Pubkey("cc" * 32))


def test_the_ledger_is_numbered_from_one_in_order_and_read_in_pages(journal: Journal) -> None:
    assert (journal.ledger(), journal.totals()) == ((), ())
    entries = tuple(entry(number) for number in range(1, 8))
    journal.commit(Batch(inputs=(), rows={}, entries=entries[:3]))
    journal.commit(Batch(inputs=(b"x",), rows={"a": b"1"}))
    journal.commit(Batch(inputs=(), rows={}, entries=entries[3:]))
    assert journal.ledger() == tuple(enumerate(entries, start=1))
    assert journal.ledger(2, 3) == tuple(enumerate(entries[1:4], start=2))
    assert journal.ledger(7) == ((7, entries[6]),)
    assert journal.ledger(8) == ()


def test_totals_are_exact_for_each_run_and_kind(journal: Journal) -> None:
    largest = msgspec.structs.replace(entry(9, "refunded", run="bb"), sum_msat=Msat(1 << 60))
    journal.commit(Batch((), {}, (largest, largest, entry(1), entry(2), entry(3, "paid"), entry(4, "ticket_sold", run="bb"))))
    first, second = EventId("bb" * 32), EventId("aa" * 32)
    assert journal.totals() == (
        LedgerTotal(first, "refunded", 2, Msat(1 << 61)),
        LedgerTotal(first, "ticket_sold", 1, Msat(4)),
        LedgerTotal(second, "paid", 1, Msat(3)),
        LedgerTotal(second, "settled", 2, Msat(3)),
    )
    assert [total.change_msat for total in journal.totals()] == [0, 4, -3, 3]


def test_loaded_rows_are_the_callers_own(journal: Journal) -> None:
    journal.commit(Batch(inputs=(), rows={"a": b"1"}))
    journal.load()["a"] = b"changed"
    assert journal.load() == {"a": b"1"}


def test_it_has_the_methods_of_the_port(journal: Journal) -> None:
    def parameters(method: Callable[..., object]) -> list[str]:
        return [name for name in inspect.signature(method).parameters if name != "self"]

    for name in ("load", "commit", "inputs", "ledger", "totals"):
        assert parameters(getattr(journal, name)) == parameters(getattr(Journal, name))


_KEYS = st.sampled_from(["a", "b", "node/1", "ü"])
_ENTRIES = st.builds(entry, st.integers(0, 1 << 40), st.sampled_from(get_args(EntryKind)), st.sampled_from(["aa", "bb"]))
_BATCHES = st.lists(
    st.builds(
        Batch,
        inputs=st.lists(st.binary(max_size=20), max_size=3).map(tuple),
        rows=st.dictionaries(_KEYS, st.none() | st.binary(max_size=20), max_size=3),
        entries=st.lists(_ENTRIES, max_size=3).map(tuple),
    ),
    max_size=6,
)


@given(batches=_BATCHES)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_real_and_fake_agree(batches: list[Batch], tmp_path_factory: pytest.TempPathFactory) -> None:
    fake = MemoryJournal()
    path = tmp_path_factory.mktemp("journal") / "journal.db"
    with SqliteJournal.open(path, power_safe=False) as real:
        for batch in batches:
            fake.commit(batch)
            real.commit(batch)
    with SqliteJournal.open(path, power_safe=False) as again:
        assert again.load() == fake.load()
        assert list(again.inputs()) == list(fake.inputs())
        assert again.ledger() == fake.ledger()
        assert again.totals() == fake.totals()
