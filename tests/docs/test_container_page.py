"""Section 8 of docs/protocol.md, read literally: a decoder in plain Python, written from the page alone, agrees with the codec."""

from __future__ import annotations

import hashlib
import math
import random
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import pytest

from nostrain.errors import RemoteProtocolError
from nostrain.protocol.digests import next_state_id
from nostrain.protocol.manifest import CodecSpec, ModelSpec, OuterSpec, TensorSpec
from nostrain.protocol.tensors import model_tensors
from nostrain.sparseloco.aggregate import cap_weights, outer_step
from nostrain.sparseloco.checkpoint import merkle_root, write_checkpoint
from nostrain.sparseloco.codec import decode_untrusted, encode
from nostrain.sparseloco.rules import plan_step
from nostrain.units import Digest, Ppm

from .page_decoder import decode
from .page_tensors import page_tensors

TENSORS = (TensorSpec("a", (3, 70)), TensorSpec("b", (64,)), TensorSpec("c", (5,)))
CODEC = CodecSpec(chunk=64, topk=6)
OUTER = OuterSpec(alpha_ppm=Ppm(1_700_000))


def told_by_the_page(blob: bytes, codec: CodecSpec) -> dict[int, int]:
    """Index in the flat vector → units."""
    return decode(blob, [tensor.shape for tensor in TENSORS], codec.chunk, codec.topk, codec.quantizer_bits)


def sample(rng: random.Random) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    values = np.array([rng.gauss(0, 1) * 2.0 ** rng.randint(-20, 2) for _ in range(279)], np.float32)
    values[64:140] = 0
    values[70] = 0.25
    return values


def tagged(tag: str, data: bytes) -> bytes:
    prefix = hashlib.sha256(tag.encode()).digest()
    return hashlib.sha256(prefix + prefix + data).digest()


@pytest.mark.parametrize("bits", [1, 2])
def test_the_page_decodes_what_we_encode(rng: random.Random, bits: int) -> None:
    codec = CodecSpec(chunk=64, topk=6, quantizer_bits=bits)
    for _ in range(10):
        blob = encode(TENSORS, codec, sample(rng))
        delta = decode_untrusted(blob, TENSORS, codec)
        assert told_by_the_page(blob, codec) == dict(zip(delta.indices.tolist(), delta.units.tolist(), strict=True))


def test_the_page_refuses_what_we_refuse(rng: random.Random) -> None:
    blob = encode(TENSORS, CODEC, sample(rng))
    for at in range(5, len(blob)):
        mutated = blob[:at] + bytes((blob[at] ^ 1 << rng.randrange(8),)) + blob[at + 1 :]
        try:
            told = told_by_the_page(mutated, CODEC)
        except AssertionError:
            with pytest.raises(RemoteProtocolError):
                decode_untrusted(mutated, TENSORS, CODEC)
        else:
            delta = decode_untrusted(mutated, TENSORS, CODEC)
            assert told == dict(zip(delta.indices.tolist(), delta.units.tolist(), strict=True))


@pytest.mark.parametrize("bits", [1, 2])
def test_the_page_decodes_a_model_of_ours(bits: int) -> None:
    """Chunks and top-k as in a run: 4096 and 64."""
    tensors = (TensorSpec("embed", (256, 128)), TensorSpec("norm", (128,)), TensorSpec("wide", (70, 190)))
    codec = CodecSpec(quantizer_bits=bits)
    values = (np.random.default_rng(5).standard_normal(256 * 128 + 128 + 70 * 190) ** 3 * 1e-3).astype(np.float32)
    blob = encode(tensors, codec, values)
    delta = decode_untrusted(blob, tensors, codec)
    told = decode(blob, [tensor.shape for tensor in tensors], codec.chunk, codec.topk, bits)
    assert told == dict(zip(delta.indices.tolist(), delta.units.tolist(), strict=True))


def test_the_page_aggregates_as_we_do(rng: random.Random) -> None:
    theta = np.array([rng.gauss(0, 1) for _ in range(279)], np.float32)
    blobs = [encode(TENSORS, CODEC, sample(rng)) for _ in range(4)]
    deltas = [decode_untrusted(blob, TENSORS, CODEC) for blob in blobs]
    units = [told_by_the_page(blob, CODEC) for blob in blobs]
    norms = [math.isqrt(sum(u * u for u in unit.values())) for unit in units]
    middle = sorted(norms)[1] + sorted(norms)[2]
    caps = [min(65536, middle * 65536 // (2 * norm)) for norm in norms]
    weights = [cap * OUTER.alpha_ppm // (5 * 10**6) for cap in caps]
    assert caps == cap_weights(deltas)
    step = plan_step(caps, OUTER, 5)
    assert weights == step.table[4].tolist()
    after = outer_step(theta, deltas, step)
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


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_the_tensors_are_those_of_the_table(family: Literal["llama", "qwen2", "qwen3"], tied: bool, bias: bool) -> None:
    spec = ModelSpec(num_hidden_layers=11, num_key_value_heads=2, tie_word_embeddings=tied, architecture=family)
    spec = msgspec.structs.replace(spec, attention_bias=bias and family != "qwen2")
    gated = msgspec.structs.replace(spec, mlp_bias=bias and family == "llama")
    for model in (spec, gated, msgspec.structs.replace(spec, head_dim=24)):
        told = page_tensors(msgspec.to_builtins(model))
        assert told == [(tensor.name, tensor.shape) for tensor in model_tensors(model)]
