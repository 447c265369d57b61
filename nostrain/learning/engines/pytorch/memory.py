"""Out of memory, as torch says it on each device, told as Python's `MemoryError`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

_SAID_BY = ("out of memory", "can't allocate memory", "not enough memory", "STATUS_ALLOC_FAILED")
"""MPS, the CPU's allocator (in two ways) and CUDA's libraries, when they find no room for their handles, raise a RuntimeError of no class of its own."""


@contextmanager
def memory_errors() -> Iterator[None]:
    """Raise MemoryError instead of whatever torch raises when a device has too little memory."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise MemoryError(str(error)) from None
    except RuntimeError as error:
        if any(words in str(error) for words in _SAID_BY):
            raise MemoryError(str(error)) from None
        raise
