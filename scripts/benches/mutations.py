"""Hostile deltas: many mutated blobs, each refused or the one encoding of another delta.

None may need more memory than an honest one and the bytes of the longest blob that is read at all.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import statistics
import time
import tracemalloc

import numpy as np

from nostrain.errors import RemoteProtocolError
from nostrain.protocol.manifest import CodecSpec, TensorSpec
from nostrain.sparseloco.codec import decode_untrusted, encode
from nostrain.sparseloco.container import largest_size
from nostrain.sparseloco.delta import Delta
from nostrain.sparseloco.layout import plan

TENSORS = (TensorSpec("embed", (130, 200)), TensorSpec("norm", (500,)), TensorSpec("wide", (64, 416)))
SIZE = 130 * 200 + 500 + 64 * 416


def mutate(blob: bytes, rng: random.Random) -> bytes:
    """Flipped bits, other bytes, words or states, a part cut out, repeated or appended."""
    out = bytearray(blob)
    match rng.randrange(5):
        case 0:
            out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
        case 1:
            for _ in range(rng.randrange(1, 9)):
                out[rng.randrange(5, len(out))] = rng.randrange(256)
        case 2:
            at = rng.randrange(5, len(out) - 8)
            out[at : at + 8] = rng.choice((bytes(8), b"\xff" * 8, rng.randbytes(8)))
        case 3:
            at = 6 + 4 * rng.randrange((len(out) - 6) // 4)
            del out[at : at + 4 * rng.randrange(1, 20)]
        case _:
            at = 6 + 4 * rng.randrange((len(out) - 6) // 4)
            out[at:at] = out[at : at + 4 * rng.randrange(1, 400)]
    return bytes(out)


def measured(blob: bytes, codec: CodecSpec) -> tuple[float, int, Delta | None]:
    """Seconds of a core, most bytes held, and the delta, None if it was refused."""
    tracemalloc.reset_peak()
    before, begin = tracemalloc.get_traced_memory()[0], time.process_time()
    delta = None
    with contextlib.suppress(RemoteProtocolError):
        delta = decode_untrusted(blob, TENSORS, codec, compiled=True)
    return time.process_time() - begin, tracemalloc.get_traced_memory()[1] - before, delta


def main() -> None:
    """Print how many were refused; fail if one crashed, needed more memory, or was accepted without being canonical."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng, generator = random.Random(options.seed), np.random.default_rng(options.seed)
    for bits in (1, 2):
        codec = CodecSpec(quantizer_bits=bits)
        blobs = [encode(TENSORS, codec, (generator.standard_normal(SIZE) * 1e-3).astype(np.float32), compiled=True) for _ in range(8)]
        decode_untrusted(blobs[0], TENSORS, codec, compiled=True)
        tracemalloc.start()
        honest = max(measured(blob, codec)[1] for blob in blobs * 25)
        usual = statistics.mean(measured(blob, codec)[0] for blob in blobs * 25)
        refused, most, slowest = 0, 0, 0.0
        for _ in range(options.count // 2):
            blob = mutate(rng.choice(blobs), rng)
            seconds, held, delta = measured(blob, codec)
            refused, most, slowest = refused + (delta is None), max(most, held), max(slowest, seconds)
            assert delta is None or encode(TENSORS, codec, delta.dense(), compiled=True) == blob
        tracemalloc.stop()
        print(
            f"{bits} bit: {options.count // 2:,} mutated, {refused:,} refused; most memory {most:,} bytes (honest {honest:,}); "
            f"slowest {slowest * 1e3:.2f} ms (honest, mean {usual * 1e3:.2f} ms)"
        )
        assert most <= honest + largest_size(plan(TENSORS, codec))


if __name__ == "__main__":
    main()
