"""A process that dies at a chosen commit (`testing.steps`), over the real journal; a full disk in memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from nostrain.errors import Unavailable
from nostrain.journal import SqliteJournal
from nostrain.ports.journal import Batch
from nostrain.testing.journal import MemoryJournal
from nostrain.testing.steps import SimulatedCrash, Steps, When, at_commit

COMMITS = at_commit("node", 0, When.BEFORE).step


@pytest.mark.parametrize(("when", "kept"), [(When.BEFORE, [b"1", b"2"]), (When.AFTER, [b"1", b"2", b"3"])])
def test_it_dies_at_the_chosen_commit_and_stays_dead(tmp_path: Path, when: When, kept: list[bytes]) -> None:
    path = tmp_path / "journal.db"
    with SqliteJournal.open(path, power_safe=False) as real:
        steps = Steps([at_commit("node", 3, when)])
        journal = steps.over("journal", real)
        for value in (b"1", b"2"):
            journal.commit(Batch(inputs=(value,), rows={"last": value}))
        with pytest.raises(SimulatedCrash, match=r"the 3\. time"):
            journal.commit(Batch(inputs=(b"3",), rows={"last": b"3"}))
        with pytest.raises(SimulatedCrash):
            journal.commit(Batch(inputs=(b"4",), rows={"last": b"4"}))
        assert steps.taken[COMMITS] == 3
    with SqliteJournal.open(path, power_safe=False) as again:
        assert [value for _, value in again.inputs()] == kept
        assert again.load() == {"last": kept[-1]}


def test_without_a_point_it_counts_the_commits() -> None:
    steps = Steps()
    journal = steps.over("journal", MemoryJournal())
    for _ in range(5):
        journal.commit(Batch(inputs=(b"x",), rows={}))
    assert steps.taken[COMMITS] == 5
    assert len(list(journal.inputs())) == 5


def test_a_full_disk_in_memory_writes_nothing() -> None:
    journal = MemoryJournal()
    journal.full = True
    with pytest.raises(Unavailable):
        journal.commit(Batch(inputs=(b"x",), rows={"a": b"1"}))
    journal.full = False
    assert journal.load() == {}
    assert list(journal.inputs()) == []
