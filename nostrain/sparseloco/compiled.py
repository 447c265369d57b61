"""Whether numba does the work: an optional extra, worth its start only for large models."""

from __future__ import annotations

from importlib.util import find_spec
from types import ModuleType
from typing import Final

from nostrain.errors import LocalProtocolError

COMPILED_FROM: Final = 1 << 24
"""Values from which on numba is used if it is there. Loading it takes about a second, compiling for the first time about twenty."""


def kernels_for(size: int, compiled: bool | None = None) -> ModuleType | None:
    """The module `kernels`, or None for numpy. `compiled` True or False decides; None leaves it to `size` and to what is installed.

    Raises:
        LocalProtocolError: numba was asked for and is not installed.
    """
    if compiled is False or (compiled is None and size < COMPILED_FROM):
        return None
    if find_spec("numba") is None:
        if compiled:
            raise LocalProtocolError("numba is not installed: nostraind's extra numba brings it")
        return None
    from nostrain.sparseloco import kernels

    return kernels
