"""Whether numba does the work: an optional extra. Large models have it at once, small ones when their process has found it worth its start (`adopt`)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from types import ModuleType
from typing import Final

from nostrain.errors import LocalProtocolError

COMPILED_FROM: Final = 1 << 24
"""Values from which on numba is used at once if it is there. Loading it takes half a second, compiling for the first time eight."""


@dataclass(slots=True)
class Small:
    """Of models below COMPILED_FROM, in this process: processor seconds that numpy took to encode and to decode, and whether numba does it now."""

    numpy_s: float = 0.0
    adopted: bool = False


SMALL: Final = Small()


@contextmanager
def by_numpy() -> Iterator[None]:
    """Counts what numpy takes. Several threads at once may lose a little of it."""
    begin = time.thread_time()
    try:
        yield
    finally:
        SMALL.numpy_s += time.thread_time() - begin


def adopt() -> None:
    """From now on numba, which must be there, is used for models of any size: results are equal."""
    SMALL.adopted = True


def available() -> bool:
    """Whether numba is installed."""
    return find_spec("numba") is not None


def kernels_for(size: int, compiled: bool | None = None) -> ModuleType | None:
    """The module `kernels`, or None for numpy. `compiled` True or False decides; None leaves it to `size`, to `adopt` and to what is installed.

    Raises:
        LocalProtocolError: numba was asked for and is not installed.
    """
    if compiled is False or (compiled is None and size < COMPILED_FROM and not SMALL.adopted):
        return None
    if not available():
        if compiled:
            raise LocalProtocolError("numba is not installed: nostraind's extra numba brings it")
        return None
    from nostrain.sparseloco import kernels

    return kernels
