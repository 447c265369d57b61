"""Everything that numba compiles, compiled or loaded from its cache: on a model of a few thousand values, called as the engine's jobs call it."""

from __future__ import annotations

import fcntl
from typing import Final

import numpy as np

from nostrain.protocol.manifest import RULE_PARAMETERS, CodecSpec, OuterSpec, TensorSpec
from nostrain.sparseloco.aggregate import caps_of, outer_step, squared_norm, step_blocks
from nostrain.sparseloco.codec import compress
from nostrain.sparseloco.rules import plan_step
from nostrain.sparseloco.stack import Stack

TENSORS: Final = (TensorSpec("tiles", (70, 130)), TensorSpec("runs", (200,)))
_SIZE: Final = 70 * 130 + 200


def warm() -> None:
    """Do it. Processes that do it at the same time do it one after the other, so that only the first on a machine has to compile.

    Raises:
        ImportError, and whatever else numba raises where it cannot work.
    """
    from nostrain.sparseloco import jitted

    with open(jitted.__file__, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        _use()


def _use() -> None:
    """`codec` and the outer step both ways, by every rule. A checkpoint that is mapped is read-only, which is a type of its own."""
    codec, flat = CodecSpec(), np.linspace(-1e-3, 1e-3, _SIZE, dtype=np.float32)
    blob, delta = compress(TENSORS, codec, flat, compiled=True)
    stack = Stack(TENSORS, codec, 3, compiled=True)
    for at in range(len(stack)):
        stack.read_untrusted(at, blob)
    squared_norm(delta, compiled=True)
    mapped = flat.copy()
    mapped.flags.writeable = False
    for rule, (_, most) in RULE_PARAMETERS.items():
        step = plan_step(caps_of(stack.squared_norms), OuterSpec(rule=rule, parameter=min(1, most)), len(stack))
        for _ in step_blocks(mapped, stack, step):
            pass
        for base in (flat, mapped):
            outer_step(base, [delta] * len(stack), step, compiled=True)
