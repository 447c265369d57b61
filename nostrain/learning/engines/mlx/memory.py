"""Out of memory, as mlx says it, told as Python's `MemoryError`.

mlx raises a RuntimeError of no class of its own: from its allocators (mlx/backend/metal/allocator.cpp, cuda/allocator.cpp) and, when a Metal command
buffer fails, at the next evaluation (metal/device.cpp). Its allocator for the CPU does not look at what malloc gives: there the process ends with
SIGSEGV, or with SIGKILL where the kernel overcommits; older versions end it with SIGABRT on Metal. `nostrain.engine.process` knows those.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

SAID_BY: Final = ("Unable to allocate", "maximum allowed buffer size", "[metal::malloc] Resource limit", "Insufficient Memory")
"""Parts of what mlx 0.32 says."""


@contextmanager
def memory_errors() -> Iterator[None]:
    """Raise MemoryError instead of what mlx raises when a device has too little memory."""
    try:
        yield
    except RuntimeError as error:
        if any(words in str(error) for words in SAID_BY):
            raise MemoryError(str(error)) from None
        raise
