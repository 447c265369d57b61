"""Scores from losses and supports: arithmetic that can be done by hand."""

from __future__ import annotations

import numpy as np
import pytest

from nostrain.learning.score import batch_losses, largest_overlaps, nanonats, provenance


def test_losses_are_nanonats_per_batch() -> None:
    assert nanonats(1.25) == 1_250_000_000
    assert batch_losses(np.array([1.0, 2.0, 3.0, 4.0, 10.0]), 2) == (1_500_000_000, 3_500_000_000, 10_000_000_000)


def test_provenance_by_hand() -> None:
    gains = np.array([[5.0, 7.0, 2.0, 2.0], [1.0, 1.0, 1.0, 3.0], [3.0, 1.0, 1.0, 1.0]])
    assigned, unassigned = slice(0, 2), slice(2, 4)
    # the others' mean is [2, 1, 1, 2]: differences [3, 6] on assigned and [1, 0] on unassigned windows
    evidence, error = provenance(gains, 0, assigned, unassigned)
    assert evidence == 4_000_000_000
    assert error == nanonats((4.5 / 2 + 0.5 / 2) ** 0.5)


def test_provenance_needs_somebody_to_compare_with() -> None:
    assert provenance(np.ones((1, 4)), 0, slice(0, 2), slice(2, 4)) == (0, 0)


@pytest.mark.parametrize("shift", [0.0, 3.0])
def test_provenance_ignores_what_lifts_everybody(shift: float) -> None:
    gains = np.random.default_rng(1).normal(size=(3, 20))
    gains[:, :10] += shift
    plain = provenance(gains - np.where(np.arange(20) < 10, shift, 0), 1, slice(0, 10), slice(10, 20))
    assert provenance(gains, 1, slice(0, 10), slice(10, 20))[0] == pytest.approx(plain[0], abs=10)


def test_overlap_is_the_largest_share_in_one_other() -> None:
    supports = [np.array([1, 2, 3]), np.array([7, 8]), np.array([], np.int64)]
    others = [np.array([1, 9]), np.array([1, 2, 8]), np.array([3])]
    assert largest_overlaps(supports, others, 10) == [666_666, 500_000, 0]
