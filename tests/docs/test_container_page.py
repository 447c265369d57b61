"""Section 8 of docs/protocol.md, read literally: a decoder in plain Python, written from the page alone, agrees with the codec."""

from __future__ import annotations

import hashlib
import math
import random
import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from nostrain.protocol.manifest import CodecSpec, OuterSpec, TensorSpec
from nostrain.sparseloco.aggregate import cap_weights, next_state_id, outer_step, step_weights
from nostrain.sparseloco.checkpoint import merkle_root, write_checkpoint
from nostrain.sparseloco.codec import decode_untrusted, encode
from nostrain.units import Digest, Ppm

TENSORS = (TensorSpec("a", (3, 70)), TensorSpec("b", (64,)), TensorSpec("c", (5,)))
CODEC = CodecSpec(chunk=64, topk=6)
OUTER = OuterSpec(alpha_ppm=Ppm(1_700_000))


def decode_as_the_page_says(blob: bytes, tensors: Sequence[TensorSpec], codec: CodecSpec) -> dict[int, Fraction]:
    """Index in the flat vector → value."""
    chunks: list[tuple[int, int, int]] = []
    start = 0
    for tensor in tensors:
        size = math.prod(tensor.shape)
        for at in range(0, size, codec.chunk):
            length = min(codec.chunk, size - at)
            chunks.append((start + at, length, math.ceil(Fraction(length * codec.topk, codec.chunk))))
        start += size
    values = sum(kept for _, _, kept in chunks)
    scales_at, positions_at = 18, 18 + 6 * len(chunks)
    codes_at = positions_at + math.ceil(12 * values / 8)
    assert len(blob) == codes_at + math.ceil(2 * values / 8)
    assert struct.unpack("<4sBBHHII", blob[:18]) == (b"NSDL", 1, 2, codec.chunk, codec.topk, len(chunks), values)
    found: dict[int, Fraction] = {}
    number = 0
    for index, (begin, length, kept) in enumerate(chunks):
        low_m, low_e, high_m, high_e = struct.unpack_from("<HbHb", blob, scales_at + 6 * index)
        for _ in range(kept):
            bits = int.from_bytes(blob[positions_at + number * 12 // 8 :][:2], "little")
            position = bits >> 4 if number % 2 else bits & 0xFFF
            code = blob[codes_at + number // 4] >> 2 * (number % 4) & 3
            magnitude = Fraction(high_m) * Fraction(2) ** high_e if code & 1 else Fraction(low_m) * Fraction(2) ** low_e
            assert position < length
            found[begin + position] = -magnitude if code & 2 else magnitude
            number += 1
    return found


def sample(rng: random.Random) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    values = np.array([rng.gauss(0, 1) * 2.0 ** rng.randint(-20, 2) for _ in range(279)], np.float32)
    values[64:140] = 0
    values[70] = 0.25
    return values


def tagged(tag: str, data: bytes) -> bytes:
    prefix = hashlib.sha256(tag.encode()).digest()
    return hashlib.sha256(prefix + prefix + data).digest()


def test_the_page_decodes_what_we_encode(rng: random.Random) -> None:
    for _ in range(20):
        blob = encode(TENSORS, CODEC, sample(rng))
        delta = decode_untrusted(blob, TENSORS, CODEC)
        told = decode_as_the_page_says(blob, TENSORS, CODEC)
        assert told == {int(i): Fraction(int(u), 2**36) for i, u in zip(delta.indices, delta.units, strict=True)}


def test_the_page_aggregates_as_we_do(rng: random.Random) -> None:
    theta = np.array([rng.gauss(0, 1) for _ in range(279)], np.float32)
    blobs = [encode(TENSORS, CODEC, sample(rng)) for _ in range(4)]
    deltas = [decode_untrusted(blob, TENSORS, CODEC) for blob in blobs]
    units = [{i: int(v * 2**36) for i, v in decode_as_the_page_says(blob, TENSORS, CODEC).items()} for blob in blobs]
    norms = [math.isqrt(sum(u * u for u in unit.values())) for unit in units]
    middle = sorted(norms)[1] + sorted(norms)[2]
    caps = [min(65536, middle * 65536 // (2 * norm)) for norm in norms]
    weights = [cap * OUTER.alpha_ppm // (5 * 10**6) for cap in caps]
    assert caps == cap_weights(deltas)
    assert weights == step_weights(caps, OUTER, 5)
    after = outer_step(theta, deltas, weights)
    for index in range(279):
        total = sum(weight * unit.get(index, 0) for weight, unit in zip(weights, units, strict=True))
        assert after[index] == theta[index] - np.ldexp(np.float32(total), -52)
    digests = [Digest(hashlib.sha256(blob).hexdigest()) for blob in blobs]
    data = bytes(32) + (4).to_bytes(4, "big") + b"".join(map(bytes.fromhex, digests)) + b"".join(c.to_bytes(4, "big") for c in caps)
    data += b"mean_r" + OUTER.alpha_ppm.to_bytes(8, "big") + (5).to_bytes(4, "big")
    assert next_state_id(Digest("00" * 32), digests, caps, OUTER, 5) == tagged("nostrain/state", data).hex()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_page_names_a_checkpoint_as_we_do(count: int, rng: random.Random, tmp_path: Path) -> None:
    tensors = TENSORS[:count]
    size = sum(math.prod(tensor.shape) for tensor in tensors)
    flat = np.array([rng.gauss(0, 1) for _ in range(size)], np.float32)
    write_checkpoint(tmp_path / "c", tensors, flat)
    file = (tmp_path / "c").read_bytes()
    data = file[8 + int.from_bytes(file[:8], "little") :]
    leaves = []
    for tensor in tensors:
        length = 4 * math.prod(tensor.shape)
        sides = len(tensor.shape).to_bytes(4, "big") + b"".join(side.to_bytes(8, "big") for side in tensor.shape)
        name = hashlib.sha256(tensor.name.encode()).digest()
        leaves.append(tagged("nostrain/leaf", name + sides + hashlib.sha256(data[:length]).digest()))
        data = data[length:]
    first = tagged("nostrain/node", leaves[0] + leaves[1]) if count > 1 else leaves[0]
    root = tagged("nostrain/node", first + leaves[2]) if count > 2 else first
    assert data == b""
    assert merkle_root(tensors, flat) == root.hex()
