"""Points and scalars of secp256k1 (SEC 2, section 2.4.1) over coincurve, which does all curve arithmetic.

A point is a coincurve `PublicKey`, hence never the point at infinity; a scalar is a Python int in 1..n-1. Scalar arithmetic on Python
ints is not constant-time: whoever holds the secrets does not run code for others on the same core (docs/security.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

from coincurve import PublicKey

Point: TypeAlias = PublicKey

N: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
"""Order of the group: scalars live in the integers mod n."""


class InvalidPoint(ValueError):
    """Bytes that encode no point of the curve, or a sum that is the point at infinity."""


class InvalidScalar(ValueError):
    """Not an integer in 1..n-1, or not 32 bytes. The message never contains the value: it may be a secret."""


def scalar_from_bytes(data: bytes) -> int:
    """The scalar that 32 big-endian bytes encode. Raises InvalidScalar outside 1..n-1: nothing is reduced silently."""
    if len(data) != 32:
        raise InvalidScalar(f"a scalar is 32 bytes, not {len(data)}")
    return require_scalar(int.from_bytes(data, "big"))


def require_scalar(value: int) -> int:
    """`value` itself if it is in 1..n-1, else InvalidScalar."""
    if not 0 < value < N:
        raise InvalidScalar("scalar outside 1..n-1")
    return value


def scalar_to_bytes(value: int) -> bytes:
    """32 big-endian bytes of a scalar in 0..n-1."""
    return value.to_bytes(32, "big")


def decode_point(data: bytes) -> Point:
    """The point of a 33-byte compressed encoding (no other is accepted). Raises InvalidPoint."""
    if len(data) != 33 or data[0] not in (2, 3):
        raise InvalidPoint("not a 33-byte compressed point")
    try:
        return PublicKey(data)
    except ValueError:
        raise InvalidPoint("not on the curve") from None


def encode_point(point: Point) -> bytes:
    """The 33-byte compressed encoding."""
    return point.format()


def lift_x(x: bytes) -> Point:
    """BIP-340 lift_x: the point with this 32-byte x coordinate and an even y. Raises InvalidPoint."""
    if len(x) != 32:
        raise InvalidPoint(f"an x-only point is 32 bytes, not {len(x)}")
    return decode_point(b"\x02" + x)


def base_multiply(scalar: int) -> Point:
    """scalar·G. Raises InvalidScalar."""
    point: Point = PublicKey.from_secret(scalar_to_bytes(require_scalar(scalar)))
    return point


def multiply(point: Point, scalar: int) -> Point:
    """scalar·point. Raises InvalidScalar."""
    product: Point = point.multiply(scalar_to_bytes(require_scalar(scalar)))
    return product


def add(points: Sequence[Point]) -> Point:
    """The sum of one or more points. Raises InvalidPoint when it is the point at infinity."""
    try:
        total: Point = PublicKey.combine_keys(points)
    except ValueError:
        raise InvalidPoint("the sum is the point at infinity") from None
    return total
