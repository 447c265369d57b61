"""Shamir sharing over the integers mod n, and Feldman's commitments to the polynomial (Shamir 1979; Feldman 1987)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nostrain.crypto.points import N, Point, add, base_multiply, multiply


def evaluate(coefficients: Sequence[int], index: int) -> int:
    """f(index) mod n for f = Σ coefficients[i]·X^i."""
    value = 0
    for coefficient in reversed(coefficients):
        value = (value * index + coefficient) % N
    return value


def interpolate_at_zero(shares: Mapping[int, int]) -> int:
    """f(0) of the polynomial of least degree through the points {index: f(index)}; indices are distinct mod n and not 0."""
    total = 0
    for j, value in shares.items():
        numerator = denominator = 1
        for i in shares:
            if i != j:
                numerator = numerator * i % N
                denominator = denominator * (i - j) % N
        total = (total + value * numerator * pow(denominator, -1, N)) % N
    return total


def commit(coefficients: Sequence[int]) -> tuple[Point, ...]:
    """Feldman's vector F_i = coefficients[i]·G. Raises InvalidScalar on a coefficient of 0."""
    return tuple(base_multiply(coefficient) for coefficient in coefficients)


def committed_share(vector: Sequence[Point], index: int) -> Point:
    """f(index)·G = Σ index^i·F_i by Horner's rule. Raises InvalidPoint when a partial sum is infinity: no honest vector does that."""
    value = vector[-1]
    for point in reversed(vector[:-1]):
        value = add([multiply(value, index), point])
    return value
