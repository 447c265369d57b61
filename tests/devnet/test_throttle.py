"""The slow link of `scripts/bench link`: rate and delay on trio's virtual clock, shared by what goes over it, and the bytes unchanged."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import trio
from trio.testing import MockClock, memory_stream_one_way_pair

PATH = Path(__file__).parents[2] / "scripts" / "benches" / "_throttle.py"
MBIT = 1_000_000


@pytest.fixture
def throttle() -> ModuleType:
    """The module, which is in no package."""
    spec = importlib.util.spec_from_file_location("throttle", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def over(direction: object, data: bytes) -> float:
    """Seconds until all of `data` has come through."""
    begin = trio.current_time()
    feed, source = memory_stream_one_way_pair()
    sink, mouth = memory_stream_one_way_pair()
    got = b""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(direction.carry, source, sink)  # type: ignore[attr-defined]
        await feed.send_all(data)
        await feed.aclose()
        while len(got) < len(data):
            got += await mouth.receive_some()
    assert got == data
    return trio.current_time() - begin


@pytest.mark.parametrize(("size", "seconds"), [(1, 0.025), (125_000, 0.035), (1_250_000, 0.125)])
def test_rate_and_delay(throttle: ModuleType, size: int, seconds: float) -> None:
    """100 Mbit/s and 25 ms one way: the last byte comes when the link has sent all, and the delay later."""
    link = throttle.Link(100 * MBIT, 0.05)
    data = bytes(number % 251 for number in range(size))
    assert trio.run(over, link.up, data, clock=MockClock(autojump_threshold=0)) == pytest.approx(seconds, abs=1e-6)
    assert (link.up.bytes, link.down.bytes) == (size, 0)


def test_connections_share_a_direction_and_directions_share_nothing(throttle: ModuleType) -> None:
    """Two transfers up take twice as long together; one down beside them is not held up."""

    async def main() -> list[float]:
        link, taken = throttle.Link(100 * MBIT, 0.05), [0.0] * 3

        async def one(place: int, direction: object) -> None:
            taken[place] = await over(direction, bytes(1_250_000))

        async with trio.open_nursery() as nursery:
            for place, direction in enumerate((link.up, link.up, link.down)):
                nursery.start_soon(one, place, direction)
        return taken

    taken = trio.run(main, clock=MockClock(autojump_threshold=0))
    assert max(taken[:2]) == pytest.approx(0.225, abs=1e-6)
    assert taken[2] == pytest.approx(0.125, abs=1e-6)
