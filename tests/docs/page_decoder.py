"""A decoder written from docs/protocol.md, section 8, alone: plain Python, nothing of ours. What the page says to refuse fails an assertion."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache


def further_bits(token: int, f: int) -> int:
    return max((token >> f) - 1, 0)


def base(token: int, f: int) -> int:
    return token if token < 1 << f else (token % (1 << f) + (1 << f)) << further_bits(token, f)


def token_of(number: int, f: int) -> int:
    return next(token for token in itertools.count() if base(token + 1, f) > number)


def frequencies(weights: list[int], one: int) -> list[int]:
    out = [1 + (4096 - len(weights)) * weight // one for weight in weights]
    out[out.index(max(out))] += 4096 - sum(out)
    return out


@cache
def step_table() -> list[int]:
    weights = [(1 << 24 + further_bits(t, 3)) // (base(t, 3) + 4) ** 3 for t in range(66)]
    return frequencies(weights, sum(weights))


@cache
def gap_table(k_token: int, spacing_token: int, chunk: int) -> list[int]:
    k = base(k_token, 1) + (1 << further_bits(k_token, 1)) // 2
    n = (2 * base(spacing_token, 2) + (1 << further_bits(spacing_token, 2))) * k // 2
    reach = [1 << 40]
    for g in range(chunk):
        reach.append(reach[g] * max(n - g - k, 0) // max(n - g, 1))
    return frequencies([reach[base(t, 3)] - reach[min(base(t + 1, 3), chunk)] for t in range(token_of(chunk - 1, 3) + 1)], 1 << 40)


@dataclass
class Chunk:
    start: int
    height: int
    width: int
    stride: int
    kept: int
    level: int = 0
    distance: int = 0


def chunks_of(shapes: Sequence[tuple[int, ...]], chunk: int, topk: int) -> Iterator[Chunk]:
    start = 0
    for shape in shapes:
        rows, columns = shape if len(shape) == 2 else (1, math.prod(shape))
        high, wide = (math.isqrt(chunk),) * 2 if len(shape) == 2 else (1, chunk)
        for top, left in itertools.product(range(0, rows, high), range(0, columns, wide)):
            height, width = min(high, rows - top), min(wide, columns - left)
            yield Chunk(start + top * columns + left, height, width, columns, math.ceil(Fraction(height * width * topk, chunk)))
        start += rows * columns


class Lanes:
    def __init__(self, blob: bytes, count: int) -> None:
        assert (blob[:5], (len(blob) - 6) % 4, len(blob) >= 6 + 8 * count) == (b"NSDL\x02", 0, True), "form"
        self.share = blob[5]
        self.x = [int.from_bytes(blob[6 + 8 * lane :][:8], "little") for lane in range(count)]
        assert all(1 << 31 <= x < 1 << 63 for x in self.x), "state"
        self.words = [int.from_bytes(blob[at : at + 4], "little") for at in range(6 + 8 * count, len(blob), 4)][::-1]

    def token(self, lane: int, table: list[int]) -> int:
        r = self.x[lane] % 4096
        ends = itertools.accumulate(table)
        token, end = next((token, end) for token, end in enumerate(ends) if r < end)
        self.x[lane] = table[token] * (self.x[lane] // 4096) + r - (end - table[token])
        return token

    def bits(self, lane: int, count: int) -> int:
        self.x[lane], value = divmod(self.x[lane], 1 << count)
        return value

    def high(self, lane: int) -> bool:
        q, r = divmod(self.x[lane], 256)
        high = r >= 256 - self.share
        self.x[lane] = self.share * q + r - (256 - self.share) if high else (256 - self.share) * q + r
        return high

    def symbol_ends(self, lane: int) -> None:
        if self.x[lane] < 1 << 31:
            assert bool(self.words), "words run out"
            self.x[lane] = self.x[lane] << 32 | self.words.pop()

    def step(self, lane: int) -> int:
        token = self.token(lane, step_table())
        number = base(token, 3) + self.bits(lane, further_bits(token, 3))
        self.symbol_ends(lane)
        return number


def decode(blob: bytes, shapes: Sequence[tuple[int, ...]], chunk: int, topk: int, quantizer_bits: int) -> dict[int, int]:
    """Index in the flat vector → units of 2^-36."""
    chunks = list(chunks_of(shapes, chunk, topk))
    lanes = Lanes(blob, math.ceil(len(chunks) / 16))
    count = len(lanes.x)
    zigzags: list[int] = []
    for turn in (chunks[at : at + count] for at in range(0, len(chunks), count)):
        zigzags += [lanes.step(lane) for lane in range(len(turn))]
        for lane, one in enumerate(turn if quantizer_bits == 2 else ()):
            one.distance = lanes.step(lane)
    for one, level in zip(chunks, itertools.accumulate(-(z + 1) // 2 if z % 2 else z // 2 for z in zigzags), strict=True):
        one.level = level
        assert (one.distance > 0) <= level <= 591 - one.distance, "level"
    told: list[list[tuple[int, bool, bool]]] = [[] for _ in chunks]
    todo = [[one for one in range(lane, len(chunks), count) for _ in range(chunks[one].kept)] for lane in range(count)]
    for turn_of_values in itertools.zip_longest(*todo):
        for lane, number in enumerate(turn_of_values):
            if number is not None:
                told[number].append(read_value(lanes, lane, chunks[number], told[number], chunk))
                lanes.symbol_ends(lane)
    assert (lanes.words, set(lanes.x)) == ([], {1 << 31}), "end"
    return checked(chunks, told, lanes.share)


def read_value(lanes: Lanes, lane: int, one: Chunk, before: list[tuple[int, bool, bool]], chunk: int) -> tuple[int, bool, bool]:
    first_free = before[-1][0] + 1 if before else 0
    n, k = one.height * one.width - first_free, one.kept - len(before)
    token = lanes.token(lane, gap_table(token_of(k, 1), token_of(n // k, 2), chunk))
    bits = lanes.bits(lane, further_bits(token, 3) + 1)
    gap = base(token, 3) + bits // 2
    assert gap <= n - k, "outside of its chunk"
    return first_free + gap, bits % 2 == 1, one.distance > 0 and lanes.high(lane)


def checked(chunks: list[Chunk], told: list[list[tuple[int, bool, bool]]], share: int) -> dict[int, int]:
    values, highs = sum(one.kept for one in chunks if one.distance), sum(high for each in told for _, _, high in each)
    assert share == (min(max((512 * highs + values) // (2 * values), 1), 255) if values else 0), "share"
    found = {}
    for one, each in zip(chunks, told, strict=True):
        assert one.distance == 0 or 0 < sum(high for _, _, high in each) < one.kept, "one magnitude is not used"
        assert one.level > 0 or each == [(position, False, False) for position in range(one.kept)], "zeros"
        for position, negative, high in each:
            index = one.start + position // one.width * one.stride + position % one.width
            found[index] = base(one.level + one.distance * high, 4) * (-1 if negative else 1)
    return found
