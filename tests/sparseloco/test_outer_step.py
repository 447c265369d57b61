"""The outer step against exact fractions: order must not matter and not a bit may differ."""

from __future__ import annotations

import hashlib
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from nostrain.errors import LocalProtocolError
from nostrain.hashes import tagged_hash
from nostrain.protocol.digests import initial_state_id, next_state_id
from nostrain.protocol.manifest import OuterSpec
from nostrain.sparseloco.aggregate import canonical_zero, cap_weights, outer_step, sparse_step, squared_norm, step_blocks
from nostrain.sparseloco.codec import decode_untrusted, encode
from nostrain.sparseloco.delta import Delta
from nostrain.sparseloco.rules import WEIGHT_ONE, Step, plan_step
from nostrain.units import Digest, Ppm

from .samples import CODEC, SIZE, TENSORS, random_values

UNIT = Fraction(1, 2**36)
seeds = st.integers(0, 2**32 - 1)


def delta_of(seed: int, scale: float = 1e-3) -> Delta:
    return decode_untrusted(encode(TENSORS, CODEC, random_values(seed, scale)), TENSORS, CODEC)


def of_weights(weights: list[int]) -> Step:
    """Every delta has one weight everywhere."""
    return Step(np.tile(np.array(weights, np.int64), (len(weights) + 1, 1)), True)


def to_float32(exact: Fraction) -> np.float32:
    """Nearest float32, ties to even, by integer arithmetic alone (normal numbers)."""
    if exact == 0:
        return np.float32(0)
    magnitude = abs(exact)
    exponent = math.floor(math.log2(magnitude.numerator) - math.log2(magnitude.denominator)) - 23
    while magnitude / Fraction(2) ** exponent >= 1 << 24:
        exponent += 1
    while magnitude / Fraction(2) ** exponent < 1 << 23:
        exponent -= 1
    mantissa = round(magnitude / Fraction(2) ** exponent)
    return np.float32(math.ldexp(mantissa, exponent) * (1 if exact > 0 else -1))


@given(st.lists(seeds, min_size=1, max_size=6), seeds, st.integers(0, 6_000_000))
def test_outer_step_is_exact(delta_seeds: list[int], weights_seed: int, alpha: int) -> None:
    deltas = [delta_of(seed, 10.0 ** -(seed % 5)) for seed in delta_seeds]
    step = plan_step(cap_weights(deltas), OuterSpec(alpha_ppm=Ppm(alpha)), len(deltas))
    flat = random_values(weights_seed, 0.05)
    after = outer_step(flat, deltas, step)
    sums = [Fraction(0)] * SIZE
    for delta, weight in zip(deltas, step.table[-1].tolist(), strict=True):
        for index, units in zip(delta.indices, delta.units, strict=True):
            sums[index] += Fraction(weight, WEIGHT_ONE) * int(units) * UNIT
    for at, exact in enumerate(sums):
        moved = to_float32(exact)
        assert after[at] == to_float32(Fraction(float(flat[at])) - Fraction(float(moved)))


@pytest.mark.parametrize("compiled", [False, True])
def test_blocks_and_the_memory_of_the_result_do_not_matter(compiled: bool) -> None:
    """Across the edges of the blocks that it works in, compiled or not, in place or not."""
    size = 1_200_000
    generator = np.random.default_rng(3)
    flat = random_values(1, 0.05, size)
    deltas = []
    for _ in range(3):
        indices = np.unique(np.append(generator.integers(0, size, 20_000), [65_535, 65_536, (1 << 20) - 1, 1 << 20, size - 1])).astype(
            np.int32
        )
        deltas.append(Delta(indices, generator.integers(-(2**38), 2**38, len(indices)), size))
    weights = [65_536, 40_000, 1]
    total = np.zeros(size, np.int64)
    for delta, weight in zip(deltas, weights, strict=True):
        total[delta.indices] += delta.units * weight
    expected = canonical_zero(flat - np.ldexp(total.astype(np.float32), -52))
    step = of_weights(weights)
    for threads in (1, 3):
        assert outer_step(flat, deltas, step, compiled=compiled, threads=threads).tobytes() == expected.tobytes()
        parts = list(step_blocks(flat, deltas, step, compiled=compiled, threads=threads))
        assert [len(part) for part in parts] == [1 << 20, size - (1 << 20)]
        assert np.concatenate(parts).tobytes() == expected.tobytes()
    assert [squared_norm(delta, compiled=compiled) for delta in deltas] == [sum(int(u) ** 2 for u in delta.units) for delta in deltas]
    assert outer_step(flat, deltas, step, out=flat, compiled=compiled, threads=2) is flat
    assert flat.tobytes() == expected.tobytes()


@given(st.permutations(range(5)))
def test_order_does_not_matter(order: list[int]) -> None:
    deltas = [delta_of(seed) for seed in range(5)]
    step = plan_step(cap_weights(deltas), OuterSpec(), 5)
    flat = random_values(9, 0.05)
    shuffled = [deltas[at] for at in order]
    assert cap_weights(shuffled) == [cap_weights(deltas)[at] for at in order]
    again = outer_step(flat, shuffled, plan_step(cap_weights(shuffled), OuterSpec(), 5))
    assert again.tobytes() == outer_step(flat, deltas, step).tobytes()


def test_one_delta_alone_is_the_sparse_step() -> None:
    flat, delta = random_values(1, 0.05), delta_of(2)
    after = outer_step(flat, [delta], of_weights([30_000]))
    assert after[delta.indices].tobytes() == sparse_step(flat, delta, 30_000).tobytes()
    untouched = np.setdiff1d(np.arange(SIZE), delta.indices)
    assert (after[untouched] == flat[untouched]).all()


def test_subnormals_and_negative_zero_become_zero() -> None:
    flat = np.array([-0.0, 1e-40, -1e-40, 2.0**-126, 1.0], np.float32)
    clean = canonical_zero(flat)
    assert clean.tobytes() == np.array([0, 0, 0, 2.0**-126, 1], np.float32).tobytes()
    assert flat[1] != 0
    nothing = Delta(np.array([0], np.int64), np.array([0], np.int64), 5)
    assert outer_step(flat, [nothing], of_weights([WEIGHT_ONE])).tobytes() == clean.tobytes()


def test_largest_possible_sums_do_not_overflow() -> None:
    largest = ((1 << 16) - 1) << 24
    delta = Delta(np.arange(3, dtype=np.int64), np.array([largest, -largest, largest], np.int64), 3)
    count = 64
    step = plan_step([WEIGHT_ONE] * count, OuterSpec(alpha_ppm=Ppm(64_000_000)), count)
    after = outer_step(np.zeros(3, np.float32), [delta] * count, step)
    expected = to_float32(-Fraction(largest * count, 2**36))
    assert after.tolist() == [expected, -expected, expected]


@pytest.mark.parametrize(("alpha", "committed"), [(65_000_000, 64), (2_000_000, 63), (-1, 64)])
def test_unusable_steps_are_refused(alpha: int, committed: int) -> None:
    with pytest.raises(LocalProtocolError, match="outer step"):
        plan_step([WEIGHT_ONE] * 64, OuterSpec(alpha_ppm=Ppm(alpha)), committed)


def test_no_commitment_at_all_is_refused() -> None:
    with pytest.raises(LocalProtocolError, match="0 deltas of 0 commitments"):
        plan_step([], OuterSpec(), 0)


@given(st.lists(st.integers(-(2**40) + 1, 2**40 - 1), min_size=1, max_size=50))
def test_squared_norm_is_exact(units: list[int]) -> None:
    delta = Delta(np.arange(len(units), dtype=np.int64), np.array(units, np.int64), len(units))
    assert squared_norm(delta) == sum(unit * unit for unit in units)


def with_norm(norm: int) -> Delta:
    return Delta(np.array([0], np.int64), np.array([norm], np.int64), 4)


@pytest.mark.parametrize(
    ("norms", "expected"),
    [
        ([], []),
        ([0, 0], [65536, 65536]),
        ([100, 200, 400], [65536, 65536, 32768]),
        ([100, 300], [65536, 43690]),
        ([0, 100, 100, 400], [65536, 65536, 65536, 16384]),
        ([1, 1, 2**40 - 1], [65536, 65536, 0]),
    ],
)
def test_norm_cap_scales_down_to_the_median(norms: list[int], expected: list[int]) -> None:
    assert cap_weights([with_norm(norm) for norm in norms]) == expected


def flat_digest(flat: NDArray[np.float32]) -> str:
    return hashlib.sha256(flat.astype("<f4").tobytes()).hexdigest()


def test_golden_digest() -> None:
    """The rule `mean_r` does not change: a run must be replayable for ever."""
    ramp = np.arange(SIZE, dtype=np.int64)
    places = ramp[:-2:5]
    deltas = [Delta(places + at, (places * step % 1009 - 504) << 20, SIZE) for at, step in enumerate((7919, 6007, 4001))]
    caps = cap_weights(deltas)
    after = outer_step((ramp % 113 - 56).astype(np.float32) / 64, deltas, plan_step(caps, OuterSpec(alpha_ppm=Ppm(1_700_000)), 4))
    assert caps == [65536, 64534, 65536]
    assert flat_digest(after) == "fe96a9e50e216dc3375fc354441e3acda7efc2f1a4c612c01ff5d2e54b95d85a"


def test_state_identity_depends_on_everything() -> None:
    root, one, two = (Digest(f"{number:064x}") for number in (1, 2, 3))
    start = initial_state_id(root)
    assert start == tagged_hash("nostrain/state", bytes.fromhex(root)).hex()
    outer = OuterSpec()
    states = [
        start,
        next_state_id(start, [one, two], [1, 2], outer, 4),
        next_state_id(start, [two, one], [1, 2], outer, 4),
        next_state_id(start, [one, two], [1, 3], outer, 4),
        next_state_id(start, [one, two], [1, 2], outer, 5),
        next_state_id(start, [one, two], [1, 2], OuterSpec(alpha_ppm=Ppm(1)), 4),
        next_state_id(start, [one], [1], outer, 4),
        next_state_id(start, [], [], outer, 4),
        next_state_id(root, [], [], outer, 4),
    ]
    assert len(set(states)) == len(states)
