"""The walk through a relay's history, against a relay that cuts its answers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nostrain.nostr.cursor import GIFT_WRAP, GIFT_WRAP_OVERLAP_S, Query
from nostrain.protocol.event import Filter
from nostrain.units import UnixTime

NOW = UnixTime(1_000_000)


def take(query: Query, created_at: int) -> None:
    """A valid event of this date."""
    query.saw(UnixTime(created_at))
    query.verified(UnixTime(created_at), NOW)


def walk(query: Query, times: list[int], cap: int) -> list[int]:
    """Indices into `times` (oldest first) in the order in which a relay with this cap returned them."""
    got, wanted, pages = [], query.live(), 0
    while True:
        found = [
            i for i in reversed(range(len(times))) if (wanted.since or 0) <= times[i] <= (NOW if wanted.until is None else wanted.until)
        ]
        for index in found[: min(cap, wanted.limit or cap)]:
            take(query, times[index])
            got.append(index)
        pages += 1
        assert pages <= 3 * len(times) + 3
        if not query.end_of_page():
            return got
        wanted = query.page()


@given(st.lists(st.integers(0, 40), max_size=60, unique=True).map(sorted), st.integers(2, 10))
def test_walk_reads_everything_however_small_the_pages(times: list[int], cap: int) -> None:
    query = Query(Filter(kinds=(1,)), overlap_s=5, page_size=500)
    assert set(walk(query, times, cap)) == set(range(len(times)))


@given(st.lists(st.integers(0, 40), max_size=60).map(sorted))
def test_walk_reads_seconds_with_several_events_that_fit_a_page(times: list[int]) -> None:
    cap = max((times.count(time) for time in times), default=0) + 1
    assert set(walk(Query(Filter(kinds=(1,)), overlap_s=5, page_size=500), times, cap)) == set(range(len(times)))


def test_reconnection_asks_from_the_cursor_with_overlap() -> None:
    query = Query(Filter(kinds=(1,), since=UnixTime(10)), overlap_s=600, page_size=500)
    assert query.live() == Filter(kinds=(1,), since=UnixTime(10), limit=500)
    take(query, 5_000)
    assert query.end_of_page()
    assert query.page().until == 5_000
    assert not query.end_of_page() or query.page().until == 4_999
    assert not query.end_of_page()
    take(query, 7_000)
    assert query.live().since == 6_400


def test_an_unfinished_walk_leaves_the_cursor_alone() -> None:
    query = Query(Filter(kinds=(1,)), overlap_s=600, page_size=500)
    query.live()
    take(query, 5_000)
    assert query.live().since is None


def test_an_event_from_the_future_does_not_carry_the_cursor_away() -> None:
    query = Query(Filter(kinds=(1,)), overlap_s=600, page_size=500)
    walk(query, [], 5)
    take(query, NOW + 10**9)
    assert query.live().since == NOW - 600


def test_only_valid_events_move_the_cursor() -> None:
    query = Query(Filter(kinds=(1,)), overlap_s=600, page_size=500)
    walk(query, [5_000], 5)
    query.saw(NOW)
    assert query.live().since == 4_400


def test_a_renewal_reaches_further_back() -> None:
    query = Query(Filter(kinds=(1,), since=UnixTime(10)), overlap_s=600, page_size=500, renewal_overlap_s=86_400)
    assert query.walking is False
    walk(query, [100_000], 5)
    assert query.renewed().since == 13_600
    assert query.walking
    take(query, 100_001)
    assert query.live().since == 99_400


def test_gift_wraps_overlap_by_their_backdating() -> None:
    for wanted in (Filter(kinds=(GIFT_WRAP,)), Filter()):
        query = Query(wanted, overlap_s=600, page_size=500)
        walk(query, [], 5)
        take(query, NOW)
        assert query.live().since == NOW - GIFT_WRAP_OVERLAP_S


def test_a_limit_of_the_caller_is_not_walked_past() -> None:
    query = Query(Filter(kinds=(1,), limit=2), overlap_s=600, page_size=500)
    assert walk(query, [1, 2, 3, 4], 10) == [3, 2]


def test_a_lossy_page_is_asked_for_again() -> None:
    query = Query(Filter(kinds=(1,)), overlap_s=600, page_size=500)
    query.live()
    take(query, 5_000)
    assert not query.lost(UnixTime(5_000))
    assert query.end_of_page()
    assert query.page().until is None


def test_a_live_event_lost_during_a_walk_restarts_it_from_the_top() -> None:
    query = Query(Filter(kinds=(1,)), overlap_s=600, page_size=500)
    query.live()
    take(query, 5_000)
    assert query.end_of_page()
    assert query.page().until == 5_000
    take(query, 9_000)
    assert not query.lost(UnixTime(9_000))
    assert query.end_of_page()
    assert query.page().until is None


def test_a_live_event_lost_after_the_walk_starts_another() -> None:
    query = Query(Filter(kinds=(1,)), overlap_s=600, page_size=500)
    walk(query, [8_000], 5)
    take(query, 9_000)
    assert query.lost(UnixTime(9_000))
    assert query.page() == Filter(kinds=(1,), since=UnixTime(8_400), limit=500)


def test_an_unasked_end_is_ignored() -> None:
    query = Query(Filter(kinds=(1,)), overlap_s=600, page_size=500)
    assert not query.end_of_page()
