"""numba's implementation gives the same bits as numpy's: what is sent, what is read, what is refused."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest

from nostrain.errors import LocalProtocolError, RemoteProtocolError
from nostrain.protocol.manifest import CodecSpec, TensorSpec
from nostrain.sparseloco import compiled
from nostrain.sparseloco.codec import compress, decode_untrusted

from .samples import ONE_BIT, TILED, TILED_SIZE, TWO_BITS, random_values

BIG = (TensorSpec("embed", (130, 200)), TensorSpec("norm", (5000,)), TensorSpec("wide", (64, 4160)))
BIG_SIZE = 130 * 200 + 5000 + 64 * 4160
CASES = [
    (TILED, TILED_SIZE, ONE_BIT),
    (TILED, TILED_SIZE, TWO_BITS),
    (BIG, BIG_SIZE, CodecSpec(quantizer_bits=1)),
    (BIG, BIG_SIZE, CodecSpec()),
]

Shapes: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "normal": lambda x: x,
    "heavy tail": lambda x: x**3 * 1e6,
    "ties": lambda x: np.round(x * 1000) / 1000,
    "mostly zero": lambda x: np.where(np.abs(x) > 2e-3, x, 0),
    "tiny": lambda x: x * np.float32(2.0**-27),
    "zero": lambda x: x * 0,
    "huge": lambda x: x * np.float32(1e30),
}


@pytest.mark.parametrize("shape", Shapes)
@pytest.mark.parametrize("case", range(len(CASES)))
def test_same_bits(case: int, shape: str) -> None:
    tensors, size, codec = CASES[case]
    dense = Shapes[shape](random_values(case, size=size)).astype(np.float32)
    blob, sent = compress(tensors, codec, dense, compiled=False)
    fast_blob, fast_sent = compress(tensors, codec, dense, compiled=True)
    assert fast_blob == blob
    for delta in (fast_sent, decode_untrusted(blob, tensors, codec, compiled=True)):
        assert delta.indices.dtype == sent.indices.dtype
        assert (delta.indices == sent.indices).all()
        assert (delta.units == sent.units).all()


def test_same_verdict_on_mutated_bytes(rng: random.Random) -> None:
    for codec in (ONE_BIT, TWO_BITS):
        original = compress(TILED, codec, random_values(7, size=TILED_SIZE), compiled=True)[0]
        for _ in range(1_000):
            blob = bytearray(original)
            for _ in range(rng.randrange(1, 4)):
                blob[rng.randrange(len(blob))] ^= rng.randrange(1, 256)
            assert verdict(bytes(blob), codec, fast=True) == verdict(bytes(blob), codec, fast=False)


def verdict(blob: bytes, codec: CodecSpec, *, fast: bool) -> bytes | None:
    """What it decodes to, or None."""
    try:
        delta = decode_untrusted(blob, TILED, codec, compiled=fast)
    except RemoteProtocolError:
        return None
    return delta.indices.tobytes() + delta.units.tobytes()


def test_what_is_not_finite_is_not_sent() -> None:
    dense = random_values(1, size=TILED_SIZE)
    dense[17] = np.inf
    with pytest.raises(LocalProtocolError, match="not finite"):
        compress(TILED, ONE_BIT, dense, compiled=True)


def test_without_numba_numpy_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "find_spec", lambda _: None)
    assert compiled.kernels_for(1 << 30) is None
    with pytest.raises(LocalProtocolError, match="numba is not installed"):
        compiled.kernels_for(1, True)


def test_small_models_are_not_worth_its_start() -> None:
    assert compiled.kernels_for(compiled.COMPILED_FROM - 1) is None
    assert compiled.kernels_for(compiled.COMPILED_FROM) is not None
