"""A stack of decoded deltas gives the same bits as the deltas one by one: norms, caps, the step by every rule, in numpy, numba and any threads."""

from __future__ import annotations

import numpy as np
import pytest

from nostrain.errors import RemoteProtocolError
from nostrain.protocol.manifest import CodecSpec, OuterSpec, TensorSpec
from nostrain.sparseloco.aggregate import cap_weights, caps_of, outer_step, squared_norm, step_blocks
from nostrain.sparseloco.codec import compress
from nostrain.sparseloco.delta import Delta
from nostrain.sparseloco.layout import plan, spans
from nostrain.sparseloco.rules import plan_step
from nostrain.sparseloco.stack import Stack
from nostrain.sparseloco.tables import RECIPROCAL_BITS, gap_reader, gap_table
from nostrain.units import Ppm

from .samples import ONE_BIT, TILED, TILED_SIZE, TWO_BITS, random_values

BIG = (TensorSpec("embed", (130, 1200)), TensorSpec("norm", (5000,)), TensorSpec("row", (1, 300)), TensorSpec("wide", (64, 4160)))
BIG_SIZE = 130 * 1200 + 5000 + 300 + 64 * 4160
CASES = [
    (TILED, TILED_SIZE, ONE_BIT),
    (TILED, TILED_SIZE, TWO_BITS),
    (BIG, BIG_SIZE, CodecSpec(quantizer_bits=1)),
    (BIG, BIG_SIZE, CodecSpec()),
]
RULES = [
    OuterSpec(),
    OuterSpec(rule="mean_contributors", alpha_ppm=Ppm(1_000_000)),
    OuterSpec(rule="sign", parameter=600_000),
    OuterSpec(rule="trim", parameter=1),
]

cases = pytest.mark.parametrize("case", range(len(CASES)))
compilers = pytest.mark.parametrize("compiled", [False, True])


def both(case: int, *, compiled: bool) -> tuple[list[Delta], Stack]:
    """Five deltas, the second of norm zero, one by one and in a stack that is filled from the back."""
    tensors, size, codec = CASES[case]
    scales = (1e-3, 0, 3e-3, 1e-6, 2e-4)
    sent = [compress(tensors, codec, random_values(seed, scale, size), compiled=compiled) for seed, scale in enumerate(scales)]
    stack = Stack(tensors, codec, len(sent), compiled=compiled)
    for at in reversed(range(len(sent))):
        stack.read_untrusted(at, sent[at][0])
    return [delta for _, delta in sent], stack


@compilers
@cases
def test_norms_and_caps(case: int, compiled: bool) -> None:
    deltas, stack = both(case, compiled=compiled)
    assert stack.squared_norms == [squared_norm(delta, compiled=False) for delta in deltas]
    assert stack.squared_norms[1] == 0
    assert caps_of(stack.squared_norms) == cap_weights(deltas)


@compilers
@cases
def test_each_delta_comes_out_as_it_went_in(case: int, compiled: bool) -> None:
    deltas, stack = both(case, compiled=compiled)
    for at, delta in enumerate(deltas):
        found = stack.delta(at)
        assert (found.size, found.indices.tolist(), found.units.tolist()) == (delta.size, delta.indices.tolist(), delta.units.tolist())


@compilers
@pytest.mark.parametrize("outer", RULES, ids=lambda outer: outer.rule)
@cases
def test_same_step(case: int, outer: OuterSpec, compiled: bool) -> None:
    deltas, stack = both(case, compiled=compiled)
    step = plan_step(cap_weights(deltas), outer, 5)
    flat = random_values(9, 0.05, CASES[case][1])
    flat[::7] = -0.0
    expected = outer_step(flat, deltas, step, compiled=False).tobytes()
    for threads in (1, 3):
        assert outer_step(flat, stack, step, threads=threads).tobytes() == expected
        assert np.concatenate(list(step_blocks(flat, stack, step, threads=threads))).tobytes() == expected
    assert outer_step(flat, stack, step, out=flat, threads=2) is flat
    assert flat.tobytes() == expected


@compilers
def test_no_deltas(compiled: bool) -> None:
    """A round without accepted work: only what is no canonical zero changes."""
    flat = np.array([-0.0, 1e-40, 2.0, -2.0] * (TILED_SIZE // 4), np.float32)
    tensors = (TensorSpec("a", (len(flat),)),)
    after = outer_step(flat, Stack(tensors, ONE_BIT, 0, compiled=compiled), plan_step([], OuterSpec(), 1))
    assert after.tobytes() == np.array([0, 0, 2.0, -2.0] * (TILED_SIZE // 4), np.float32).tobytes()


@compilers
def test_what_is_no_delta_is_refused(compiled: bool) -> None:
    blob, _ = compress(TILED, TWO_BITS, random_values(1, size=TILED_SIZE), compiled=compiled)
    stack = Stack(TILED, TWO_BITS, 1, compiled=compiled)
    for bad in (blob[:-4], blob + bytes(4), blob[:-1] + bytes([blob[-1] ^ 1])):
        with pytest.raises(RemoteProtocolError, match="delta"):
            stack.read_untrusted(0, bad)
    stack.read_untrusted(0, blob)


@pytest.mark.parametrize("most", [1, 64, 5000, 1 << 16, 1 << 30])
@cases
def test_spans_are_whole_chunks_in_order(case: int, most: int) -> None:
    tensors, size, codec = CASES[case]
    layout = plan(tensors, codec)
    found = spans(layout, most)
    edges = [(span.begin, span.first) for span in found] + [(size, layout.chunks)]
    assert [(span.end, span.last) for span in found] == edges[1:]
    assert edges[0] == (0, 0)
    for span in found:
        mine = slice(span.first, span.last)
        assert layout.starts[mine].min() == span.begin
        assert layout.lengths[mine].sum() == span.end - span.begin
    row = max(min(tensor.shape[0], 64) * tensor.shape[-1] if len(tensor.shape) == 2 else 1 for tensor in tensors)
    assert max(span.end - span.begin for span in found) <= max(most, row, codec.chunk)


def test_the_readers_division_is_exact() -> None:
    """For every number of places and of values: the row is that of the table."""
    reader, gaps = gap_reader(4096, 4096), gap_table(4096, 4096)
    k = np.arange(1, 4097)
    for places in (*range(1, 4096, 61), 4095, 4096):
        left = k[:places]
        assert ((places * reader.reciprocal[left] >> RECIPROCAL_BITS) == places // left).all()
        rows = reader.rows[reader.offset[left] + places // left]
        assert (rows == gaps.contexts(np.full(len(left), places), left)).all()
