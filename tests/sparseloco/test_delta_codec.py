"""The compressor and its container: round trips, one encoding per delta, mutated bytes."""

from __future__ import annotations

import hashlib
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from nostrain.errors import LocalProtocolError, RemoteProtocolError
from nostrain.protocol.manifest import CodecSpec, TensorSpec
from nostrain.sparseloco.codec import decode_untrusted, encode
from nostrain.sparseloco.container import Parts, encoded_size, pack
from nostrain.sparseloco.delta import EXPONENT_MAX, EXPONENT_MIN, Delta
from nostrain.sparseloco.feedback import accumulate, remainder
from nostrain.sparseloco.layout import Layout, plan
from nostrain.units import Ppm

from .samples import CODEC, SIZE, TENSORS, random_values

LAYOUT = plan(TENSORS, CODEC)

values = st.lists(
    st.one_of(
        st.floats(width=32, allow_nan=False, allow_infinity=False, min_value=-20, max_value=20),
        st.sampled_from([0.0, -0.0, 1e-3, -1e-3, 2.0**-36, 2.0**-37, 1e-30, 16.0, -3e38]),
    ),
    min_size=SIZE,
    max_size=SIZE,
).map(lambda items: np.array(items, np.float32))


def test_layout_keeps_a_share_of_short_chunks() -> None:
    assert LAYOUT.lengths.tolist() == [64, 64, 22, 7, 1, 64, 64]
    assert LAYOUT.kept.tolist() == [5, 5, 2, 1, 1, 5, 5]
    assert LAYOUT.starts.tolist() == [0, 64, 128, 150, 157, 158, 222]
    assert (LAYOUT.size, LAYOUT.values) == (SIZE, 24)


def test_top_k_is_what_a_plain_sort_gives() -> None:
    dense = random_values(1)
    delta = decode_untrusted(encode(TENSORS, CODEC, dense), TENSORS, CODEC)
    expected = []
    for start, length, kept in zip(LAYOUT.starts, LAYOUT.lengths, LAYOUT.kept, strict=True):
        ranked = sorted(range(start, start + length), key=lambda at: (-abs(dense[at]), at))
        expected += sorted(ranked[:kept])
    assert delta.indices.tolist() == expected
    assert (np.sign(delta.values()) == np.sign(dense[delta.indices])).all()


def test_ties_go_to_the_lower_index() -> None:
    delta = decode_untrusted(encode(TENSORS, CODEC, np.full(SIZE, 0.25, np.float32)), TENSORS, CODEC)
    assert delta.indices[:10].tolist() == [0, 1, 2, 3, 4, 64, 65, 66, 67, 68]
    assert (delta.values() == 0.25).all()


@given(values)
def test_encoding_is_canonical(dense: NDArray[np.float32]) -> None:
    blob = encode(TENSORS, CODEC, dense)
    delta = decode_untrusted(blob, TENSORS, CODEC)
    assert len(blob) == encoded_size(LAYOUT)
    assert (np.diff(delta.indices) > 0).all()
    assert encode(TENSORS, CODEC, delta.dense()) == blob
    assert (np.ldexp(delta.values().astype(np.float64), 36) == delta.units).all()


@given(st.data())
def test_mutated_bytes_are_refused_or_are_another_delta(data: st.DataObject) -> None:
    blob = bytearray(encode(TENSORS, CODEC, random_values(data.draw(st.integers(0, 3)))))
    for _ in range(data.draw(st.integers(1, 3))):
        blob[data.draw(st.integers(0, len(blob) - 1))] ^= data.draw(st.integers(1, 255))
    mutated = bytes(blob)
    try:
        packed = pack_again(decode_untrusted(mutated, TENSORS, CODEC))
    except RemoteProtocolError:
        packed = mutated  # refused, and with no other error
    assert packed == mutated


def pack_again(delta: Delta) -> bytes:
    """Write `delta` without the top-k and the quantizer: the same bytes mean that nothing in the blob it came from was free to vary."""
    low_m, low_e, high_m, high_e, codes = [], [], [], [], []
    for start, kept in zip(LAYOUT.first, LAYOUT.kept, strict=True):
        units = delta.units[start : start + kept]
        levels = sorted({abs(int(unit)) for unit in units})
        low, high = levels[0], (levels[1] if len(levels) == 2 else 0)
        for level, mantissas, exponents in ((low, low_m, low_e), (high, high_m, high_e)):
            shift = max(0, level.bit_length() - 16)
            mantissas.append(level >> shift)
            exponents.append(shift + EXPONENT_MIN if level else 0)
        codes += [int(high > 0 and abs(int(unit)) == high) | int(unit < 0) << 1 for unit in units]
    positions = delta.indices - np.repeat(LAYOUT.starts, LAYOUT.kept)
    arrays = [np.array(items, np.int64) for items in (low_m, low_e, high_m, high_e)]
    return pack(Parts(*arrays, positions, np.array(codes, np.int64)), LAYOUT, CODEC)


@given(st.binary(max_size=400))
def test_garbage_is_refused(blob: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="delta"):
        decode_untrusted(blob, TENSORS, CODEC)


def test_wrong_length_is_refused_before_anything_is_allocated() -> None:
    tensors = (TensorSpec("large", (1 << 14, 1 << 12)),)
    codec = CodecSpec()
    plan(tensors, codec)
    tracemalloc.start()
    with pytest.raises(RemoteProtocolError, match="10 bytes, but this run's deltas have exactly"):
        decode_untrusted(b"NSDL\x01\x02abcd", tensors, codec)
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()


def one_chunk(positions: list[int], codes: list[int], low: tuple[int, int], high: tuple[int, int]) -> bytes:
    """A container of one chunk of 64 values, 5 kept, exactly as given."""
    arrays = [np.array([number], np.int64) for number in (*low, *high)]
    return pack(Parts(*arrays, np.array(positions, np.int64), np.array(codes, np.int64)), ONE_LAYOUT, CODEC)


ONE = (TensorSpec("one", (64,)),)
ONE_LAYOUT: Layout = plan(ONE, CODEC)
LOW, HIGH, ZERO = (40_000, -20), (50_000, -20), (0, 0)


@pytest.mark.parametrize(
    ("reason", "positions", "codes", "low", "high"),
    [
        ("strictly increase", [1, 1, 2, 3, 4], [0, 1, 0, 0, 0], LOW, HIGH),
        ("strictly increase", [2, 1, 3, 4, 5], [0, 1, 0, 0, 0], LOW, HIGH),
        ("outside of its chunk", [1, 2, 3, 4, 64], [0, 1, 0, 0, 0], LOW, HIGH),
        ("magnitudes", [1, 2, 3, 4, 5], [0, 1, 0, 0, 0], HIGH, LOW),
        ("magnitudes", [1, 2, 3, 4, 5], [0, 1, 0, 0, 0], LOW, LOW),
        ("magnitudes", [1, 2, 3, 4, 5], [0, 0, 0, 0, 0], LOW, HIGH),
        ("magnitudes", [1, 2, 3, 4, 5], [1, 1, 1, 1, 1], LOW, HIGH),
        ("magnitudes", [1, 2, 3, 4, 5], [0, 1, 0, 0, 0], LOW, ZERO),
        ("scale", [1, 2, 3, 4, 5], [0, 1, 0, 0, 0], (20_000, -20), HIGH),
        ("scale", [1, 2, 3, 4, 5], [0, 1, 0, 0, 0], LOW, (50_000, EXPONENT_MAX + 1)),
        ("scale", [1, 2, 3, 4, 5], [0, 1, 0, 0, 0], (40_000, EXPONENT_MIN - 1), HIGH),
        ("scale", [1, 2, 3, 4, 5], [0, 1, 0, 0, 0], (0, -20), HIGH),
        ("has a sign", [0, 2, 3, 4, 5], [2, 1, 1, 1, 1], ZERO, HIGH),
        ("lowest free", [1, 2, 3, 4, 5], [0, 1, 1, 1, 1], ZERO, HIGH),
    ],
)
def test_other_spellings_are_refused(
    reason: str, positions: list[int], codes: list[int], low: tuple[int, int], high: tuple[int, int]
) -> None:
    with pytest.raises(RemoteProtocolError, match=reason):
        decode_untrusted(one_chunk(positions, codes, low, high), ONE, CODEC)


@pytest.mark.parametrize(
    ("positions", "codes", "low", "high"),
    [
        ([1, 2, 3, 4, 63], [0, 1, 2, 3, 0], LOW, HIGH),
        ([1, 2, 3, 4, 63], [0, 0, 2, 2, 0], LOW, ZERO),
        ([0, 1, 2, 3, 4], [0, 0, 0, 0, 0], ZERO, ZERO),
        ([0, 2, 3, 4, 5], [0, 1, 1, 1, 3], ZERO, HIGH),
        ([0, 1, 2, 9, 11], [1, 0, 0, 1, 3], ZERO, (1, EXPONENT_MIN)),
    ],
)
def test_canonical_spellings_are_accepted(positions: list[int], codes: list[int], low: tuple[int, int], high: tuple[int, int]) -> None:
    blob = one_chunk(positions, codes, low, high)
    delta = decode_untrusted(blob, ONE, CODEC)
    assert delta.indices.tolist() == positions
    assert encode(ONE, CODEC, delta.dense()) == blob


@pytest.mark.parametrize("at", [0, 4, 5, 6, 8, 10, 14])
def test_every_header_field_is_fixed(at: int) -> None:
    blob = bytearray(encode(TENSORS, CODEC, random_values(1)))
    blob[at] ^= 1
    with pytest.raises(RemoteProtocolError, match="header"):
        decode_untrusted(bytes(blob), TENSORS, CODEC)


@pytest.mark.parametrize(("section", "at"), [("codes", -1), ("positions", -3)])
def test_padding_bits_are_zero(section: str, at: int) -> None:
    """Five kept values take 60 position bits of 64 and 10 code bits of 16."""
    blob = bytearray(encode(ONE, CODEC, random_values(1, size=64)))
    blob[at] |= 0x80
    with pytest.raises(RemoteProtocolError, match=f"padding after the {section}"):
        decode_untrusted(bytes(blob), ONE, CODEC)


def test_golden_digest() -> None:
    """The bytes of version 1 do not change: a mirrored blob must mean the same for ever."""
    ramp = (np.arange(SIZE, dtype=np.int64) * 7919 % 1009 - 504).astype(np.float32) / np.float32(2**14)
    blob = encode(TENSORS, CODEC, ramp)
    assert blob[:18].hex() == "4e53444c0102400005000700000018000000"
    assert hashlib.sha256(blob).hexdigest() == "2d91b11107f8b6c7a07dfb048f936e518fe758cd15577859d178628c75ab34e2"


def test_error_feedback_loses_nothing() -> None:
    residual = np.zeros(SIZE, np.float32)
    for seed in range(3):
        total = accumulate(residual, random_values(seed), Ppm(950_000))
        sent = decode_untrusted(encode(TENSORS, CODEC, total), TENSORS, CODEC)
        residual = remainder(total, sent)
        np.testing.assert_allclose(residual + sent.dense(), total, rtol=0, atol=1e-9)
        assert np.linalg.norm(residual) < np.linalg.norm(total)


def test_error_feedback_decays() -> None:
    first = random_values(1)
    total = accumulate(first, np.zeros_like(first), Ppm(500_000))
    assert (total == first / 2).all()


@pytest.mark.parametrize(
    ("dense", "reason"),
    [
        (np.full(SIZE, np.nan, np.float32), "not finite"),
        (np.full(SIZE, np.inf, np.float32), "not finite"),
        (np.zeros(SIZE - 1, np.float32), "flat float32 vector"),
        (np.zeros(SIZE, np.float64), "flat float32 vector"),
    ],
)
def test_our_own_bad_values_are_our_fault(dense: NDArray[np.float32], reason: str) -> None:
    with pytest.raises(LocalProtocolError, match=reason):
        encode(TENSORS, CODEC, dense)


@pytest.mark.parametrize(
    "codec", [CodecSpec(version=2), CodecSpec(quantizer_bits=8), CodecSpec(chunk=8192), CodecSpec(chunk=32, topk=33), CodecSpec(topk=0)]
)
def test_unsupported_codecs_are_named(codec: CodecSpec) -> None:
    with pytest.raises(LocalProtocolError, match="codec"):
        plan(TENSORS, codec)


def test_quantizer_is_better_than_a_sign() -> None:
    dense = random_values(4, size=1 << 16)
    tensors = (TensorSpec("w", (1 << 16,)),)
    delta = decode_untrusted(encode(tensors, CodecSpec(), dense), tensors, CodecSpec())
    kept = dense[delta.indices]
    one_level = np.linalg.norm(np.abs(kept) - np.abs(kept).mean())
    assert np.linalg.norm(kept - delta.values()) < 0.65 * one_level
