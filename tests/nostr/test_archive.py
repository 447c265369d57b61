"""What was published, for relays that were away or have lost it."""

from __future__ import annotations

from pathlib import Path

import pytest

from nostrain.errors import ConfigError, Unavailable
from nostrain.nostr import archive
from nostrain.nostr.archive import KEEP_S, Archive
from nostrain.protocol.event import Draft, Event
from nostrain.units import UnixTime
from tests.nostr.scripted_relay import ALICE, note

A, B = "ws://a", "ws://b"
NOW = UnixTime(1_000)


def owed(archive: Archive, relay: str, after: int = 0) -> Event:
    there = archive.owed(relay, after)
    assert there is not None
    return there[1]


def test_what_is_owed_survives_a_restart_in_order(tmp_path: Path) -> None:
    path, events = tmp_path / "published.sqlite", [note(str(i)) for i in range(3)]
    first = Archive(path)
    for event in events:
        first.keep(event, [A, B], NOW)
    first.settle(A, events[0].id)
    first.close()
    again = Archive(path)
    assert owed(again, A) == events[1]
    assert owed(again, B) == events[0]
    assert again.owed("ws://c") is None
    number, _ = again.owed(A) or (0, None)
    assert owed(again, A, number) == events[2]
    assert again.owed(A, number + 1) is None
    again.close()


def test_keeping_twice_changes_nothing() -> None:
    kept, event = Archive(), note()
    kept.keep(event, [A], NOW)
    kept.keep(event, [], NOW)
    assert owed(kept, A) == event
    kept.settle(A, event.id)
    assert kept.owed(A) is None
    kept.close()


def test_only_what_is_kept_can_be_owed_and_taken_stock_of() -> None:
    kept, old, new = Archive(), note("old"), note("new")
    wrap, presence = note("wrap", kind=1059), note("here", kind=28650)
    for event in (old, new, wrap, presence):
        kept.keep(event, [B], NOW)
    assert kept.latest(A, 10) == [new.id, old.id]
    assert kept.latest(A, 1) == [new.id]
    assert kept.latest(B, 10) == []
    kept.owe(A, [old.id, note("never published").id, presence.id])
    assert owed(kept, A) == old
    assert kept.latest(A, 10) == [new.id]
    kept.close()


def test_it_is_bounded_by_age_and_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "KEEP_EVENTS", 2)
    kept, events = Archive(), [note(str(i)) for i in range(4)]
    for event in events[:3]:
        kept.keep(event, [A], NOW)
    assert kept.latest(B, 10) == [events[2].id, events[1].id]
    assert owed(kept, A) == events[1]
    kept.keep(events[3], [], UnixTime(NOW + KEEP_S + 1))
    assert kept.latest(B, 10) == [events[3].id]
    assert kept.owed(A) is None
    kept.close()


def test_trouble_with_the_file_is_said(tmp_path: Path) -> None:
    damaged = tmp_path / "published.sqlite"
    damaged.write_bytes(b"not a database" * 100)
    with pytest.raises(ConfigError, match="damaged"):
        Archive(damaged)
    with pytest.raises(Unavailable):
        Archive(tmp_path / "no folder" / "published.sqlite")


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    kept, first = Archive(tmp_path / "published.sqlite"), note("first")
    kept.keep(first, [A], NOW)
    kept._database.execute("PRAGMA max_page_count = 8")
    with pytest.raises(Unavailable, match="full"):
        kept.keep(note("x" * 60_000), [A], NOW)
    assert owed(kept, A) == first
    kept.settle(A, first.id)
    assert kept.owed(A) is None
    kept.close()


def test_an_advert_takes_the_place_of_the_one_before() -> None:
    kept = Archive()

    def pointer(content: str, created_at: int, run: str = "x") -> Event:
        return ALICE.sign(Draft(UnixTime(created_at), 38650, (("d", run),), content))

    old, other, new, statement = pointer("old", 1), pointer("other", 1, "y"), pointer("new", 2), note("statement")
    for event in (old, other, statement, new):
        kept.keep(event, [A], NOW)
    assert kept.latest(B, 10) == [new.id, statement.id, other.id]
    assert owed(kept, A) == other
    kept.keep(pointer("late", 0), [A], NOW)
    assert new.id in kept.latest(B, 10)
    kept.close()
