"""The rules of the outer step: numpy, numba and torch against fractions, bit for bit; no order, no threads, no overflow."""

from __future__ import annotations

import itertools
from fractions import Fraction

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nostrain.core.bounds import manifest_problem
from nostrain.errors import LocalProtocolError
from nostrain.protocol.digests import next_state_id
from nostrain.protocol.manifest import RULE_PARAMETERS, OuterSpec, Rule
from nostrain.sparseloco.aggregate import canonical_zero, cap_weights, outer_step, sparse_step
from nostrain.sparseloco.delta import Delta
from nostrain.sparseloco.rules import WEIGHT_ONE, lone_weight, plan_step
from nostrain.units import Digest, Ppm
from tests.core.actors import EXAMPLES

from .samples import random_values

SIZE = 70_000
"""More than a block, so that there are edges."""

RULES: list[tuple[Rule, int]] = [("mean_r", 0), ("mean_contributors", 0), ("shrink", 3), ("sign", 600_000), ("trim", 1), ("trim", 2)]


def outer_of(rule: Rule, parameter: int, alpha: int = 2_000_000) -> OuterSpec:
    return OuterSpec(rule=rule, alpha_ppm=Ppm(alpha), parameter=parameter)


def crowd(seed: int, count: int) -> list[Delta]:
    """Deltas that meet at some coordinates, some of their values equal and some zero."""
    generator = np.random.default_rng(seed)
    deltas = []
    for _ in range(count):
        indices = np.unique(generator.choice([*range(40), 65_534, 65_535, 65_536, 65_537, SIZE - 1], 30)).astype(np.int32)
        units = generator.integers(-4, 5, len(indices)) << generator.integers(0, 36)
        deltas.append(Delta(indices, units, SIZE))
    return deltas


def exact_sums(deltas: list[Delta], caps: list[int], outer: OuterSpec, committed: int) -> dict[int, int]:
    """The sums of all coordinates in units of 2^-52, as docs/protocol.md tells it: numbers, lists, and no arrays."""
    values: dict[int, list[tuple[int, int]]] = {}
    for cap, delta in zip(caps, deltas, strict=True):
        for index, unit in zip(delta.indices.tolist(), delta.units.tolist(), strict=True):
            if unit:
                values.setdefault(index, []).append((cap, unit))
    sums = {}
    for index, found in values.items():
        n, number = len(found), outer.parameter
        trimmed = outer.rule == "trim" and n > 2 * number
        divisor = {"mean_contributors": n, "shrink": n + number, "trim": n - 2 * number if trimmed else n}.get(outer.rule, committed)
        products = sorted(int(Fraction(cap * outer.alpha_ppm, divisor * 10**6)) * unit for cap, unit in found)
        if outer.rule == "sign" and Fraction(abs(sum(1 if unit > 0 else -1 for _, unit in found)), n) < Fraction(number, 10**6):
            products = []
        sums[index] = sum(products[number : n - number] if trimmed else products)
    return sums


def torch_step(flat: NDArray[np.float32], deltas: list[Delta], caps: list[int], outer: OuterSpec, committed: int, device: str) -> bytes:
    """The same in torch, dense: every delta as a row of int64."""
    rows = torch.zeros((len(deltas), len(flat)), dtype=torch.int64, device=device)
    for row, delta in zip(rows, deltas, strict=True):
        row[torch.from_numpy(delta.indices.astype(np.int64)).to(device)] = torch.from_numpy(delta.units).to(device)
    n = (rows != 0).sum(0)
    trimmed = n > 2 * outer.parameter if outer.rule == "trim" else torch.zeros_like(n, dtype=torch.bool)
    cut = outer.parameter * trimmed
    divisors = {"mean_contributors": n, "shrink": n + outer.parameter, "trim": n - 2 * cut}
    divisor = divisors.get(outer.rule, torch.full_like(n, committed)).clamp(min=1)
    scaled = torch.tensor(caps, device=device)[:, None] * outer.alpha_ppm
    products = rows * torch.div(scaled, divisor * 10**6, rounding_mode="floor")
    present = torch.where(rows != 0, products, torch.iinfo(torch.int64).max).sort(dim=0).values
    place = torch.arange(len(deltas), device=device)[:, None]
    total = torch.where((place >= cut) & (place < n - cut), present, 0).sum(0)
    if outer.rule == "sign":
        total[rows.sign().sum(0).abs() * 10**6 < n * outer.parameter] = 0
    after = torch.from_numpy(flat).to(device) - total.to(torch.float32) * torch.tensor(2.0**-52, dtype=torch.float32, device=device)
    after[after.abs() < 2.0**-126] = 0
    return after.cpu().numpy().tobytes()


@settings(max_examples=6)
@given(st.integers(0, 2**32 - 1), st.integers(1, 7), st.integers(1, 64_000_000), st.integers(0, 3))
@pytest.mark.parametrize(("rule", "parameter"), RULES)
def test_numpy_numba_torch_and_fractions_agree(rule: Rule, parameter: int, seed: int, count: int, alpha: int, absent: int) -> None:
    deltas, outer, committed = crowd(seed, count), outer_of(rule, parameter, alpha), count + absent
    caps = cap_weights(deltas)
    step = plan_step(caps, outer, committed)
    flat = random_values(seed, 0.05, SIZE)
    total = np.zeros(SIZE, np.int64)
    for index, exact in exact_sums(deltas, caps, outer, committed).items():
        total[index] = exact
    expected = canonical_zero(flat - np.ldexp(total.astype(np.float32), -52)).tobytes()
    assert outer_step(flat, deltas, step, compiled=False).tobytes() == expected
    assert outer_step(flat, deltas, step, compiled=True, threads=2).tobytes() == expected
    assert torch_step(flat, deltas, caps, outer, committed, "cpu") == expected


@pytest.mark.parametrize(("rule", "parameter"), RULES)
def test_a_graphics_processor_gives_the_same_bits(rule: Rule, parameter: int) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here: the outer step was not compared on one")
    deltas, outer, flat = crowd(3, 7), outer_of(rule, parameter), random_values(3, 0.05, SIZE)
    caps = cap_weights(deltas)
    expected = outer_step(flat, deltas, plan_step(caps, outer, 8)).tobytes()
    assert torch_step(flat, deltas, caps, outer, 8, "cuda") == expected


@given(st.permutations(range(5)))
@pytest.mark.parametrize(("rule", "parameter"), RULES)
def test_order_does_not_matter(rule: Rule, parameter: int, order: list[int]) -> None:
    deltas, outer, flat = crowd(8, 5), outer_of(rule, parameter), random_values(8, 0.05, SIZE)
    shuffled = [deltas[at] for at in order]
    here, there = (outer_step(flat, some, plan_step(cap_weights(some), outer, 6)) for some in (deltas, shuffled))
    assert here.tobytes() == there.tobytes()


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(("rule", "parameter"), RULES)
def test_a_delta_alone_takes_the_step_that_it_is_scored_with(rule: Rule, parameter: int, compiled: bool) -> None:
    delta, outer, flat = crowd(4, 1)[0], outer_of(rule, parameter), random_values(4, 0.05, SIZE)
    after = outer_step(flat, [delta], plan_step([50_000], outer, 4), compiled=compiled)
    assert after[delta.indices].tobytes() == sparse_step(flat, delta, lone_weight(50_000, outer, 4)).tobytes()


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(("rule", "parameter"), [*RULES, ("trim", 9)])
def test_the_largest_sums_do_not_overflow(rule: Rule, parameter: int, compiled: bool) -> None:
    """Twenty deltas of the largest value at the largest α, of one sign and of both."""
    largest = ((1 << 16) - 1) << 24
    outer = outer_of(rule, parameter, 64_000_000)
    step = plan_step([WEIGHT_ONE] * 20, outer, 20)
    for signs in ([1] * 20, [1, -1] * 10, [1] * 19 + [-1]):
        deltas = [Delta(np.array([1], np.int32), np.array([largest * sign]), 3) for sign in signs]
        exact = exact_sums(deltas, [WEIGHT_ONE] * 20, outer, 20)[1]
        assert abs(exact) < 1 << 62
        after = outer_step(np.zeros(3, np.float32), deltas, step, compiled=compiled)
        assert after.tolist() == [0, -float(np.float32(exact)) * 2.0**-52, 0]


@pytest.mark.parametrize(("rule", "parameter"), RULES)
def test_an_alpha_that_could_overflow_is_refused(rule: Rule, parameter: int) -> None:
    with pytest.raises(LocalProtocolError, match="too large"):
        plan_step([WEIGHT_ONE] * 7, outer_of(rule, parameter, 513_000_000), 7)


@pytest.mark.parametrize("rule", RULE_PARAMETERS)
def test_a_parameter_out_of_range_is_refused_by_the_step_and_by_readers(rule: Rule) -> None:
    least, most = RULE_PARAMETERS[rule]
    for parameter, allowed in ((least - 1, False), (least, True), (most, True), (most + 1, False)):
        outer = outer_of(rule, parameter)
        assert (manifest_problem(msgspec.structs.replace(EXAMPLES.manifest, outer=outer)) is None) is allowed
        if allowed:
            plan_step([WEIGHT_ONE], outer, 1)
        else:
            with pytest.raises(LocalProtocolError, match="parameter"):
                plan_step([WEIGHT_ONE], outer, 1)


def test_the_state_is_named_by_rule_and_parameter() -> None:
    start, delta = Digest("00" * 32), Digest("11" * 32)
    rules = [*RULES, ("shrink", 4), ("sign", 600_001)]
    names = [next_state_id(start, [delta], [WEIGHT_ONE], outer_of(rule, parameter), 4) for rule, parameter in rules]
    for one, other in itertools.combinations(names, 2):
        assert one != other
