"""A fast matrix product for mlx on Linux, whose wheel brings the reference BLAS of Netlib.

`libmlx.so` calls `cblas_sgemm` through the dynamic linker, which looks at libraries opened with RTLD_GLOBAL before those that a library names
itself. So an OpenBLAS opened before mlx is imported takes the place of the reference, without LD_PRELOAD. It would do so for every
library loaded later, torch too: only an engine process that runs nothing but mlx may call this.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Final

NAMES: Final = ("libopenblas.so.0", "libopenblas.so")


def use_openblas() -> bool:
    """Open the OpenBLAS that the dynamic linker finds, LD_LIBRARY_PATH first; False if there is none.

    It obeys OPENBLAS_NUM_THREADS. A Mac needs none: there mlx has Metal, and Accelerate.
    """
    if sys.platform != "linux":
        return True
    for name in NAMES:
        try:
            library = ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
        except OSError:
            continue
        if hasattr(library, "cblas_sgemm"):
            return True
    return False
