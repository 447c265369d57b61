"""From verdicts to levels: exact, in integers, the same for everyone who has the same verdicts, in whatever order they came."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nostrain.core.rounds.scoring import (
    SAME_PPM,
    attested_levels,
    attesting,
    median,
    provenance_milli_z,
    provenance_refusals,
    refusal,
    standings,
    thermometer,
)
from nostrain.core.rows import Round
from nostrain.protocol.manifest import ScoringSpec
from nostrain.protocol.messages import Attestation, AttestationItem, Score, Verdict
from nostrain.units import PPM, Digest, EventId, Ppm, Pubkey
from tests.core.actors import EXAMPLES, Node, until
from tests.docs.examples import Party

SPEC = ScoringSpec()
WORKERS = tuple(Pubkey(f"{n:064x}") for n in range(1, 6))
ZERO = Digest("0" * 64)


def verdict(*scores: Score, number: int = 1) -> Verdict:
    return Verdict(EventId(ZERO), EventId(ZERO), number, EventId(ZERO), ZERO, ZERO, (), scores)


def gains(*table: tuple[int | None, ...]) -> list[Verdict]:
    """One verdict for each row; None is a refusal by its validator."""
    return [
        verdict(*(Score(w, error="no delta") if gain is None else Score(w, gain=gain) for w, gain in zip(WORKERS, row, strict=False)))
        for row in table
    ]


def levels(verdicts: list[Verdict], spec: ScoringSpec = SPEC, count: int = 3) -> list[int]:
    return [standing.level for standing in standings(verdicts, WORKERS[:count], spec, {}).values()]


@pytest.mark.parametrize(("values", "middle"), [([3], 3), ([2, 1], 1), ([9, 1, 5], 5), ([4, 3, 2, 1], 2), ([-5, -1], -5)])
def test_the_median_is_the_lower_one(values: list[int], middle: int) -> None:
    assert median(values) == middle


def test_levels_follow_from_each_workers_share_of_the_median() -> None:
    million = 1_000_000
    verdicts = gains((million, million * 55 // 100, million, million * 69 // 100, 0))
    # Sorted: 0, .55, .69, 1, 1 → the median is .69.
    found = standings(verdicts, WORKERS, SPEC, {})
    assert [one.level for one in found.values()] == [4, 4, 4, 4, 0]
    assert found[WORKERS[1]].score_ppm == 550_000 * PPM // 690_000
    assert found[WORKERS[0]].score_ppm == 1_000_000 * PPM // 690_000


@pytest.mark.parametrize(
    ("score", "level"), [(399_999, 0), (400_000, 1), (499_999, 1), (500_000, 2), (600_000, 3), (699_999, 3), (700_000, 4)]
)
def test_a_threshold_is_reached_exactly(score: int, level: int) -> None:
    verdicts = gains((PPM, score, PPM))
    assert levels(verdicts)[1] == level


def test_scores_are_limited_on_both_sides() -> None:
    found = standings(gains((10_000_000, 1_000_000, -50_000_000)), WORKERS[:3], SPEC, {})
    assert [one.score_ppm for one in found.values()] == [1_500_000, 1_000_000, -1_000_000]
    assert found[WORKERS[2]].reason == "score -1000000 ppm is below the first level"


def test_below_the_floor_nobody_is_lifted_by_everybodys_weakness() -> None:
    weak = SPEC.floor_nanonats // 10
    assert levels(gains((weak, weak, weak))) == [0, 0, 0]
    assert levels(gains((SPEC.floor_nanonats,) * 3)) == [4, 4, 4]


def test_the_median_of_validators_decides_a_gain() -> None:
    honest, liar = (1_000_000, 1_000_000, 1_000_000), (-9_000_000, 9_000_000, 1_000_000)
    assert levels(gains(honest, liar, honest)) == [4, 4, 4]
    assert levels(gains(honest, liar)) == [0, 4, 4]


def test_a_majority_of_refusals_refuses_and_fewer_do_not() -> None:
    one, two = (1_000_000, None, 1_000_000), (1_000_000, 1_000_000, 1_000_000)
    found = standings(gains(one, one, two), WORKERS[:3], SPEC, {})
    assert (found[WORKERS[1]].level, found[WORKERS[1]].reason) == (0, "no delta")
    assert levels(gains(one, two, two)) == [4, 4, 4]
    assert levels(gains(one, two)) == [4, 4, 4]


def test_with_every_worker_refused_nobody_has_a_level() -> None:
    assert levels(gains((None, None, None), (None, None, None))) == [0, 0, 0]


def test_a_worker_without_a_verdict_has_none() -> None:
    found = standings(gains((1_000_000,)), WORKERS[:2], SPEC, {})
    assert (found[WORKERS[1]].level, found[WORKERS[1]].reason) == (0, "no verdict")


@pytest.mark.parametrize(
    ("score", "number", "refused"),
    [
        (Score(ZERO, overlap_ppm=Ppm(500_000)), 1, False),  # type: ignore[arg-type]
        (Score(ZERO, overlap_ppm=Ppm(500_001)), 1, True),  # type: ignore[arg-type]
        (Score(ZERO, overlap_round_ppm=SAME_PPM), 3, False),  # type: ignore[arg-type]
        (Score(ZERO, overlap_round_ppm=Ppm(SAME_PPM + 1)), 3, True),  # type: ignore[arg-type]
        (Score(ZERO, overlap_round_ppm=Ppm(500_001)), 4, True),  # type: ignore[arg-type]
    ],
)
def test_overlaps_are_refused_from_their_round_on(score: Score, number: int, refused: bool) -> None:
    assert (refusal([score], SPEC, number) is not None) is refused
    assert refusal([score, Score(ZERO), Score(ZERO)], SPEC, number) is None  # type: ignore[arg-type]


SCORES = st.builds(
    Score,
    worker=st.just(WORKERS[0]),
    error=st.none() | st.sampled_from(["not a delta", "cannot be had"]),
    gain=st.integers(-(1 << 61), 1 << 61),
    overlap_ppm=st.integers(0, PPM).map(Ppm),
    overlap_round_ppm=st.integers(0, PPM).map(Ppm),
)
TABLES = st.integers(1, 5).flatmap(lambda workers: st.lists(st.lists(SCORES, min_size=workers, max_size=workers), min_size=1, max_size=5))


@given(TABLES, st.randoms(use_true_random=False), st.integers(1, 9))
def test_the_same_verdicts_in_any_order_give_the_same_levels(table: list[list[Score]], rng: random.Random, number: int) -> None:
    workers = WORKERS[: len(table[0])]
    verdicts = [
        verdict(*(msgspec.structs.replace(score, worker=worker) for worker, score in zip(workers, row, strict=True)), number=number)
        for row in table
    ]
    expected = standings(verdicts, workers, SPEC, {})
    shuffled, turned = rng.sample(verdicts, len(verdicts)), rng.sample(workers, len(workers))
    assert standings(shuffled, turned, SPEC, {}) == expected
    for standing in expected.values():
        assert 0 <= standing.level <= 4
        assert (standing.reason is None) is (standing.level > 0)
        assert -PPM <= standing.score_ppm <= PPM * 3 // 2


@given(st.lists(st.integers(0, 10_000_000), min_size=3, max_size=3), st.integers(0, 5_000_000))
def test_more_gain_never_means_a_lower_level(row: list[int], more: int) -> None:
    before = levels(gains(tuple(row)))[0]
    assert levels(gains((row[0] + more, *row[1:])))[0] >= before or median([row[0] + more, *row[1:]]) > median(row)


@given(st.integers(0, 4))
def test_a_thermometer_says_its_level(level: int) -> None:
    digits = thermometer(level, 4)
    assert sum(digits) == level
    assert list(digits) == sorted(digits, reverse=True)


# --- attestations --------------------------------------------------------------------------------------------------------


def attested(votes: dict[str, list[int]]) -> Round:
    """A round in which validators attested these levels for the first worker, one event for each number."""
    row = Node(Party("listener")).hear(until("announcement")).round
    found: dict[EventId, tuple[Pubkey, Attestation]] = {}
    for author, said in votes.items():
        for number, level in enumerate(said):
            item = AttestationItem(WORKERS[0], "", "", Pubkey(ZERO), (), thermometer(level, 4), ())
            body = Attestation(EXAMPLES.run, row.id, 1, EventId(ZERO), (), (item,))
            found[EventId(f"{author}{number}")] = (Pubkey(author), body)
    return msgspec.structs.replace(row, attestations=found)


@pytest.mark.parametrize(
    ("votes", "threshold", "level"),
    [
        ({"a": [4], "b": [3], "c": [1]}, 1, 4),
        ({"a": [4], "b": [3], "c": [1]}, 2, 3),
        ({"a": [4], "b": [3], "c": [1]}, 3, 1),
        ({"a": [4]}, 2, 0),
        ({"a": [4, 4, 4]}, 2, 0),
        ({"a": [1, 4], "b": [2]}, 2, 2),
        ({"a": [4, 1], "b": [2]}, 2, 2),
    ],
)
def test_the_level_that_counts_is_the_highest_that_t_validators_attest(votes: dict[str, list[int]], threshold: int, level: int) -> None:
    assert attested_levels(attested(votes), threshold) == {WORKERS[0]: level}


def test_only_cited_attestations_and_different_validators_count() -> None:
    row = attested({"a": [4, 3], "b": [2]})
    assert attesting(row, WORKERS[0], 2, set(row.attestations)) == {"a", "b"}
    assert attesting(row, WORKERS[0], 3, set(row.attestations)) == {"a"}
    assert attesting(row, WORKERS[0], 4, {EventId("a1"), EventId("b0")}) == frozenset()
    assert attesting(row, WORKERS[1], 1, set(row.attestations)) == frozenset()


# --- provenance ----------------------------------------------------------------------------------------------------------


def test_stouffers_z_over_what_can_be_used() -> None:
    good, broken = Score(WORKERS[0], provenance=8_000, provenance_se=1_000), Score(WORKERS[0], error="no delta", provenance_se=1)
    assert provenance_milli_z([good]) == 8_000
    assert provenance_milli_z([good] * 4) == 16_000
    assert provenance_milli_z([good, broken, Score(WORKERS[0])]) == 8_000
    assert provenance_milli_z([broken]) is None


@pytest.mark.parametrize(("number", "least", "refused"), [(3, 6_000, False), (4, 6_000, True), (4, 0, False), (4, 1_700, False)])
def test_work_on_other_data_is_refused_from_its_round_on(number: int, least: int, refused: bool) -> None:
    spec = msgspec.structs.replace(SPEC, min_provenance_milli_z=least)
    row = Node(Party("listener")).hear(until("verdict 2")).round
    row = msgspec.structs.replace(row, announcement=msgspec.structs.replace(row.announcement, round=number))
    weak = {
        author: (
            one,
            msgspec.structs.replace(said, scores=tuple(msgspec.structs.replace(s, provenance=1, provenance_se=1) for s in said.scores)),
        )
        for author, (one, said) in row.verdicts.items()
    }
    row = msgspec.structs.replace(row, verdicts=weak)
    # Three scores of D / se = 1: z = √3 = 1.7.
    found = provenance_refusals([], row, spec)
    assert bool(found) is refused
    if found:
        assert set(found) == set(EXAMPLES.announcement.workers)
        assert "z = 1.7" in next(iter(found.values()))


def test_provenance_looks_back_four_rounds() -> None:
    spec = msgspec.structs.replace(SPEC, min_provenance_milli_z=6_000)
    now = Node(Party("listener")).hear(until("verdict 2")).round

    def of(number: int, ratio: int) -> Round:
        row = msgspec.structs.replace(now, announcement=msgspec.structs.replace(now.announcement, round=number))
        said = {
            author: (
                one,
                msgspec.structs.replace(v, scores=tuple(msgspec.structs.replace(s, provenance=ratio, provenance_se=1) for s in v.scores)),
            )
            for author, (one, v) in row.verdicts.items()
        }
        return msgspec.structs.replace(row, verdicts=said)

    strong, weak = 100, 1
    assert provenance_refusals([of(7, strong)], of(9, weak), spec) == {}
    assert provenance_refusals([of(5, strong)], of(9, weak), spec) != {}
