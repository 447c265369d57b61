"""What small models have from numba, and when: everything that a job calls is compiled beforehand, and nothing is adopted unasked."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from numba.core.dispatcher import Dispatcher

from nostrain.protocol.manifest import RULE_PARAMETERS, OuterSpec
from nostrain.sparseloco import compiled, jitted, jitted_coder, jitted_step
from nostrain.sparseloco.aggregate import cap_weights, caps_of, outer_step, step_blocks
from nostrain.sparseloco.checkpoint import map_checkpoint_untrusted, write_checkpoint
from nostrain.sparseloco.codec import compress, decode_untrusted
from nostrain.sparseloco.rules import plan_step
from nostrain.sparseloco.stack import Stack
from nostrain.sparseloco.warm import warm

from .samples import ONE_BIT, TILED, TILED_SIZE, TWO_BITS, random_values


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> compiled.Small:
    """As in a process of its own."""
    monkeypatch.setattr(compiled, "SMALL", compiled.Small())
    return compiled.SMALL


def versions() -> dict[str, int]:
    """How many combinations of types every compiled function has."""
    found = {}
    for module in (jitted, jitted_coder, jitted_step):
        assert isinstance(module, ModuleType)
        found |= {name: len(one.signatures) for name, one in vars(module).items() if isinstance(one, Dispatcher)}
    return found


def use(folder: Path) -> list[bytes]:
    """All that the jobs of an engine do; what came of it."""
    flat, parts = random_values(1, size=TILED_SIZE), []
    write_checkpoint(folder / "model", TILED, flat)
    mapped = map_checkpoint_untrusted(folder / "model", TILED)
    for codec in (ONE_BIT, TWO_BITS):
        blobs, deltas = zip(*(compress(TILED, codec, random_values(seed, size=TILED_SIZE)) for seed in (2, 3, 4)), strict=True)
        stack = Stack(TILED, codec, len(blobs))
        for at, blob in enumerate(blobs):
            stack.read_untrusted(at, blob)
        parts += [*blobs, *(decode_untrusted(blob, TILED, codec).units.tobytes() for blob in blobs)]
        for rule, (_, most) in RULE_PARAMETERS.items():
            outer = OuterSpec(rule=rule, parameter=min(1, most))
            step = plan_step(caps_of(stack.squared_norms), outer, len(blobs))
            parts += [np.concatenate(list(step_blocks(mapped, stack, step))).tobytes()]
            parts += [outer_step(base, deltas, plan_step(cap_weights(deltas), outer, len(blobs))).tobytes() for base in (flat, mapped)]
    return parts


def test_what_jobs_call_is_compiled_beforehand_and_changes_no_bit(tmp_path: Path, small: compiled.Small) -> None:
    by_numpy = use(tmp_path)
    assert small.numpy_s > 0
    warm()
    before, spent = versions(), small.numpy_s
    compiled.adopt()
    assert use(tmp_path) == by_numpy
    assert versions() == before
    assert small.numpy_s == spent


def test_without_numba_nothing_changes(small: compiled.Small, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(compiled, "find_spec", lambda _: None)
    assert not compiled.available()
    assert compiled.kernels_for(TILED_SIZE) is None
    assert use(tmp_path)
