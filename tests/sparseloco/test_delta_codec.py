"""The compressor and its container: round trips, one encoding per delta, mutated bytes, what is refused and why."""

from __future__ import annotations

import hashlib
import math
import random
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from nostrain.errors import LocalProtocolError, RemoteProtocolError
from nostrain.protocol.manifest import CodecSpec, TensorSpec
from nostrain.sparseloco.codec import compress, decode_untrusted, encode
from nostrain.sparseloco.coder import encode_stream
from nostrain.sparseloco.container import Parts, high_counts, join, largest_size, places_of, share_of, split_untrusted
from nostrain.sparseloco.feedback import accumulate, remainder
from nostrain.sparseloco.layout import plan
from nostrain.sparseloco.minifloat import LEVEL_UNITS, LEVELS
from nostrain.sparseloco.tables import gap_table, step_table
from nostrain.units import Ppm

from .samples import ONE_BIT, SIZE, TILED, TILED_SIZE, TWO_BITS, random_values

CODECS = [ONE_BIT, TWO_BITS]
LAYOUT = plan(TILED, ONE_BIT)
both = pytest.mark.parametrize("codec", CODECS, ids=["one", "two"])

values = st.lists(
    st.one_of(
        st.floats(width=32, allow_nan=False, allow_infinity=False, min_value=-20, max_value=20),
        st.sampled_from([0.0, -0.0, 1e-3, -1e-3, 2.0**-36, 2.0**-37, 1e-30, 16.0, -3e38]),
    ),
    min_size=TILED_SIZE,
    max_size=TILED_SIZE,
).map(lambda items: np.array(items, np.float32))


def test_layout_cuts_tiles_and_runs() -> None:
    assert LAYOUT.lengths.tolist() == [64, 16, 8, 2, 7, 1, 64, 32, 64, 6]
    assert LAYOUT.kept.tolist() == [5, 2, 1, 1, 1, 1, 5, 3, 5, 1]
    assert LAYOUT.starts.tolist() == [0, 8, 80, 88, 90, 97, 98, 162, 194, 258]
    assert (LAYOUT.size, LAYOUT.values) == (TILED_SIZE, 25)


def chunks_by_hand() -> list[list[int]]:
    """Flat indices of every chunk of TILED, by plain slicing."""
    flat, found = np.arange(TILED_SIZE), []
    offset = 0
    for tensor in TILED:
        size = math.prod(tensor.shape)
        mine = flat[offset : offset + size].reshape(tensor.shape if len(tensor.shape) == 2 else (1, size))
        high, wide = (8, 8) if len(tensor.shape) == 2 else (1, 64)
        found += [
            mine[top : top + high, left : left + wide].ravel().tolist()
            for top in range(0, mine.shape[0], high)
            for left in range(0, mine.shape[1], wide)
        ]
        offset += size
    return found


@both
def test_top_k_is_what_a_plain_sort_gives(codec: CodecSpec) -> None:
    dense = random_values(1, size=TILED_SIZE)
    delta = decode_untrusted(encode(TILED, codec, dense), TILED, codec)
    expected = [
        at
        for chunk in chunks_by_hand()
        for at in sorted(chunk, key=lambda at: (-abs(dense[at]), chunk.index(at)))[: math.ceil(len(chunk) * 5 / 64)]
    ]
    assert delta.indices.tolist() == sorted(expected)
    assert (np.sign(delta.values()) == np.sign(dense[delta.indices])).all()


@both
def test_ties_go_to_the_lower_position(codec: CodecSpec) -> None:
    delta = decode_untrusted(encode(TILED, codec, np.full(TILED_SIZE, 0.25, np.float32)), TILED, codec)
    assert delta.indices[:10].tolist() == [0, 1, 2, 3, 4, 8, 9, 80, 88, 90]
    assert (delta.values() == 0.25).all()


def test_two_magnitudes_are_lloyds() -> None:
    dense = np.zeros(64, np.float32)
    dense[[3, 9, 20, 33, 60]] = [1.0, -1.125, 2.0, -2.125, 2.0]
    delta = decode_untrusted(encode(ONE, TWO_BITS, dense), ONE, TWO_BITS)
    assert delta.values().tolist() == [1.0625, -1.0625, 2.0, -2.0, 2.0]
    delta = decode_untrusted(encode(ONE, ONE_BIT, dense), ONE, ONE_BIT)
    assert delta.values().tolist() == [1.625, -1.625, 1.625, -1.625, 1.625]


@both
@given(dense=values)
def test_encoding_is_canonical(codec: CodecSpec, dense: NDArray[np.float32]) -> None:
    blob, sent = compress(TILED, codec, dense)
    delta = decode_untrusted(blob, TILED, codec)
    assert len(blob) <= largest_size(LAYOUT)
    assert (np.diff(delta.indices) > 0).all()
    assert (delta.indices == sent.indices).all()
    assert (delta.units == sent.units).all()
    assert encode(TILED, codec, delta.dense()) == blob
    assert (np.ldexp(delta.values().astype(np.float64), 36) == delta.units).all()


@both
def test_mutated_bytes_are_refused_or_are_another_delta(codec: CodecSpec, rng: random.Random) -> None:
    """Few here; `scripts/bench mutations` does 100,000 and watches memory."""
    blobs = [encode(TILED, codec, random_values(seed, size=TILED_SIZE)) for seed in range(4)]
    accepted = 0
    for _ in range(2_000):
        blob = bytearray(rng.choice(blobs))
        for _ in range(rng.randrange(1, 4)):
            blob[rng.randrange(len(blob))] ^= rng.randrange(1, 256)
        accepted += not_refused(bytes(blob), codec)
    assert accepted < 200


def not_refused(blob: bytes, codec: CodecSpec) -> bool:
    """Whether it decodes; then it must be the one encoding of what it says: nothing in it was free to vary."""
    try:
        delta = decode_untrusted(blob, TILED, codec)
    except RemoteProtocolError:
        return False
    assert encode(TILED, codec, delta.dense()) == blob
    return True


@both
@given(blob=st.binary(max_size=400))
def test_garbage_is_refused(codec: CodecSpec, blob: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="delta"):
        decode_untrusted(blob, TILED, codec)


@pytest.mark.parametrize("size", [10, 5_000_000])
def test_an_impossible_length_is_refused_before_anything_is_allocated(size: int) -> None:
    tensors, codec = (TensorSpec("large", (1 << 14, 1 << 12)),), CodecSpec()
    plan(tensors, codec)
    blob = bytes(size)
    tracemalloc.start()
    with pytest.raises(RemoteProtocolError, match=f"{size} bytes cannot be a delta of this run"):
        decode_untrusted(blob, tensors, codec)
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()


ONE = (TensorSpec("one", (8, 8)),)


def one_chunk(positions: list[int], codes: list[int], level: int, step: int, codec: CodecSpec = TWO_BITS) -> bytes:
    """A container of one tile of 64 values, 5 kept, exactly as given."""
    parts = Parts(np.array([level]), np.array([step]), places_of(np.array(positions, np.int32), np.array(codes, np.uint8)))
    return join(encode_stream(parts, plan(ONE, codec), codec))


@pytest.mark.parametrize(
    ("reason", "positions", "codes", "level", "step"),
    [
        ("magnitude is out of range", [1, 2, 3, 4, 5], [0, 0, 0, 0, 0], LEVELS, 0),
        ("magnitude is out of range", [1, 2, 3, 4, 5], [0, 1, 0, 0, 0], LEVELS - 1, 1),
        ("magnitude is out of range", [1, 2, 3, 4, 5], [0, 0, 0, 0, 0], -1, 0),
        ("magnitude is out of range", [0, 1, 2, 3, 4], [0, 1, 0, 0, 0], 0, 3),
        ("uses one", [1, 2, 3, 4, 5], [0, 0, 0, 0, 0], 300, 3),
        ("uses one", [1, 2, 3, 4, 5], [1, 1, 3, 1, 1], 300, 3),
        ("chunk of zeros", [0, 1, 2, 3, 5], [0, 0, 0, 0, 0], 0, 0),
        ("chunk of zeros", [0, 1, 2, 3, 4], [0, 2, 0, 0, 0], 0, 0),
    ],
)
def test_other_spellings_are_refused(reason: str, positions: list[int], codes: list[int], level: int, step: int) -> None:
    with pytest.raises(RemoteProtocolError, match=reason):
        decode_untrusted(one_chunk(positions, codes, level, step), ONE, TWO_BITS)


@pytest.mark.parametrize(
    ("positions", "codes", "level", "step"),
    [
        ([1, 2, 3, 4, 63], [0, 1, 2, 3, 0], 300, 5),
        ([1, 2, 3, 4, 63], [0, 0, 2, 2, 0], 1, 0),
        ([0, 1, 2, 3, 4], [0, 0, 0, 0, 0], 0, 0),
        ([59, 60, 61, 62, 63], [3, 1, 1, 1, 0], 1, LEVELS - 2),
    ],
)
def test_canonical_spellings_are_accepted(positions: list[int], codes: list[int], level: int, step: int) -> None:
    blob = one_chunk(positions, codes, level, step)
    delta = decode_untrusted(blob, ONE, TWO_BITS)
    assert delta.indices.tolist() == positions
    assert np.abs(delta.units).tolist() == [LEVEL_UNITS[level + step * (code & 1)] for code in codes]
    assert encode(ONE, TWO_BITS, delta.dense()) == blob


def test_another_share_is_refused() -> None:
    """With the header's share changed, the bytes may say something: but not what the share says of it."""
    layout = plan(ONE, TWO_BITS)
    parts = Parts(np.array([300]), np.array([5]), places_of(np.arange(1, 6, dtype=np.int32), np.array([0, 1, 0, 0, 1], np.uint8)))
    stream = encode_stream(parts, layout, TWO_BITS)
    assert stream.share == share_of(parts.steps, high_counts(parts, layout), layout) == 102
    for share in set(range(256)) - {102}:
        with pytest.raises(RemoteProtocolError, match="delta"):
            decode_untrusted(join(type(stream)(stream.states, stream.words, share)), ONE, TWO_BITS)


@pytest.mark.parametrize("at", [0, 4, 5])
def test_the_header_is_fixed(at: int) -> None:
    blob = bytearray(encode(TILED, ONE_BIT, random_values(1, size=TILED_SIZE)))
    blob[at] ^= 1
    with pytest.raises(RemoteProtocolError, match="header"):
        decode_untrusted(bytes(blob), TILED, ONE_BIT)


@both
@pytest.mark.parametrize("state", [0, 2**31 - 1, 2**63, 2**64 - 1])
def test_a_state_out_of_range_is_refused(codec: CodecSpec, state: int) -> None:
    blob = encode(TILED, codec, random_values(1, size=TILED_SIZE))
    with pytest.raises(RemoteProtocolError, match="state is out of range"):
        decode_untrusted(blob[:6] + state.to_bytes(8, "little") + blob[14:], TILED, codec)


@both
def test_words_too_many_or_too_few_are_refused(codec: CodecSpec) -> None:
    blob = encode(TILED, codec, random_values(1, size=TILED_SIZE))
    assert len(split_untrusted(blob, LAYOUT, codec).words) > 3
    for mutated, reason in ((blob + bytes(4), "does not end"), (blob[:-4], "ends before"), (blob[:-1], "cannot be a delta")):
        with pytest.raises(RemoteProtocolError, match=reason):
            decode_untrusted(mutated, TILED, codec)


@pytest.mark.parametrize(("chunk", "topk"), [(4096, 64), (4096, 1), (4096, 4096), (64, 5), (1, 1), (9, 9)])
def test_every_frequency_is_positive_and_they_add_up(chunk: int, topk: int) -> None:
    for table in (gap_table(chunk, topk).table, step_table()):
        assert (table.frequency > 0).all()
        assert (table.frequency.sum(axis=1) == 4096).all()


def test_random_places_cost_what_they_must() -> None:
    """64 places of 4096 cost 7.364 bits each at least; signs 1, scales and states little."""
    tensors, codec = (TensorSpec("w", (1024, 1024)),), CodecSpec(quantizer_bits=1)
    blob = encode(tensors, codec, random_values(4, size=1 << 20))
    assert 8.364 < 8 * len(blob) / (256 * 64) < 8.48
    assert (4 << 20) / len(blob) > 240


def test_golden_digests() -> None:
    """The bytes of version 2 do not change: a mirrored blob must mean the same for ever."""
    ramp = (np.arange(TILED_SIZE, dtype=np.int64) * 7919 % 1009 - 504).astype(np.float32) / np.float32(2**14)
    assert [hashlib.sha256(encode(TILED, codec, ramp)).hexdigest() for codec in CODECS] == [
        "4e496c380308207a2204f30c2bce9fc79578f93d0bed524b8d5ad13a2a312897",
        "e941f91909d4efc9b5c9f84f1e90c61e63c2bcfa94d4f61c1f70d34cbde3999c",
    ]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_not_sent(value: float) -> None:
    dense = random_values(1, size=TILED_SIZE)
    dense[17] = value
    with pytest.raises(LocalProtocolError, match="not finite"):
        encode(TILED, ONE_BIT, dense)


@pytest.mark.parametrize("size", [0, SIZE - 1, TILED_SIZE + 1])
def test_a_vector_of_another_length_is_refused(size: int) -> None:
    with pytest.raises(LocalProtocolError, match=f"flat float32 vector of {TILED_SIZE} values"):
        encode(TILED, ONE_BIT, random_values(1, size=size))


@pytest.mark.parametrize(
    "codec", [CodecSpec(version=1), CodecSpec(quantizer_bits=3), CodecSpec(chunk=8192), CodecSpec(chunk=63, topk=1), CodecSpec(topk=0)]
)
def test_other_codecs_are_refused(codec: CodecSpec) -> None:
    with pytest.raises(LocalProtocolError, match="codec"):
        plan(TILED, codec)


@both
def test_error_feedback_loses_nothing(codec: CodecSpec) -> None:
    """What is sent and what is kept add up to what there was, within one rounding."""
    residual, gradient = random_values(1, size=TILED_SIZE), random_values(2, size=TILED_SIZE)
    expected = residual * np.float32(0.95) + gradient
    total = accumulate(residual, gradient, Ppm(950_000))
    assert total is residual
    assert total.tobytes() == expected.tobytes()
    _, sent = compress(TILED, codec, total)
    left = remainder(total, sent)
    np.testing.assert_allclose(left + sent.dense(), expected, rtol=0, atol=1e-9)
    untouched = np.setdiff1d(np.arange(TILED_SIZE), sent.indices)
    assert (left[untouched] == expected[untouched]).all()
