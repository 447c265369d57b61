"""Decoding of points and scalars, and the group operations."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nostrain.crypto.points import (
    InvalidPoint,
    InvalidScalar,
    N,
    add,
    base_multiply,
    decode_point,
    encode_point,
    lift_x,
    multiply,
    require_scalar,
    scalar_from_bytes,
)

SCALARS = st.integers(1, N - 1)
G = base_multiply(1)


@settings(max_examples=40, deadline=None)
@given(SCALARS, SCALARS)
def test_the_group_is_linear_in_its_scalars(a: int, b: int) -> None:
    assert decode_point(encode_point(base_multiply(a))) == base_multiply(a)
    assert multiply(base_multiply(a), b) == base_multiply(a * b % N)
    if (a + b) % N:
        assert add([base_multiply(a), base_multiply(b)]) == base_multiply((a + b) % N)


@settings(max_examples=30, deadline=None)
@given(SCALARS)
def test_lift_x_takes_the_even_y(a: int) -> None:
    point = encode_point(base_multiply(a))
    lifted = encode_point(lift_x(point[1:]))
    assert lifted == b"\x02" + point[1:]
    assert lift_x(point[1:]) == base_multiply(a if point[0] == 2 else N - a)


def test_the_point_at_infinity_does_not_exist() -> None:
    with pytest.raises(InvalidPoint, match="infinity"):
        add([G, base_multiply(N - 1)])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        encode_point(G)[1:],
        G.format(compressed=False),
        b"\x02" + b"\xff" * 32,
        b"\x05" + encode_point(G)[1:],
        b"\x02" + bytes(31) + b"\x05",
    ],
    ids=["empty", "x-only", "uncompressed", "x beyond p", "prefix", "off the curve"],
)
def test_other_encodings_are_no_points(data: bytes) -> None:
    with pytest.raises(InvalidPoint):
        decode_point(data)


@pytest.mark.parametrize("data", [b"", bytes(31), bytes(33), bytes(32), b"\xff" * 32])
def test_other_x_coordinates_do_not_lift(data: bytes) -> None:
    with pytest.raises(InvalidPoint):
        lift_x(data)


@pytest.mark.parametrize("value", [0, N, -1, N + 1, 1 << 256])
def test_scalars_are_never_reduced(value: int) -> None:
    with pytest.raises(InvalidScalar):
        require_scalar(value)
    with pytest.raises(InvalidScalar):
        base_multiply(value) if value < 1 << 256 else scalar_from_bytes(value.to_bytes(33, "big"))
    with pytest.raises(InvalidScalar):
        multiply(G, value)
