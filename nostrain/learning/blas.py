"""A faster matrix product than the framework brings: OpenBLAS, put in its place by the dynamic linker (docs/adr/0040).

mlx's Linux wheel has Netlib's reference BLAS; torch's has MKL, which on AMD's processors leaves AVX-512 unused. Both call BLAS by symbol, and the
linker looks at libraries opened with RTLD_GLOBAL before those that a library brings. So an OpenBLAS opened before the framework is imported is
what it calls, without LD_PRELOAD; and so only a process that runs jobs of one engine and nothing else may do this: last bits change with it.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from pathlib import Path
from typing import Final

from nostrain.protocol.engines import EngineKind

NAMES: Final = ("libopenblas.so.0", "libopenblas.so")


def gains(kind: EngineKind) -> bool:
    """Whether OpenBLAS is faster than what the engine brings: not on a Mac, and for torch on AMD's processors only."""
    if sys.platform != "linux":
        return False
    return kind == "mlx" or (platform.machine() == "x86_64" and is_amd(Path("/proc/cpuinfo")))


def is_amd(cpuinfo: Path) -> bool:
    """Whether the first processor listed is one of AMD's; False if nothing can be read."""
    try:
        lines = cpuinfo.read_text(errors="replace").splitlines()
    except OSError:
        return False
    vendor = next((line for line in lines if line.startswith("vendor_id")), "")
    return vendor.partition(":")[2].strip() == "AuthenticAMD"


def use_openblas() -> bool:
    """Open the OpenBLAS that the dynamic linker finds, LD_LIBRARY_PATH first; False if there is none. It obeys OPENBLAS_NUM_THREADS."""
    for name in NAMES:
        try:
            library = ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
        except OSError:
            continue
        if hasattr(library, "cblas_sgemm"):
            return True
    return False


def prepare_process(kind: EngineKind) -> str | None:
    """Give this process, which has not imported the framework yet, the faster product if there is one; what is missing, in words."""
    if gains(kind) and not use_openblas():
        return f"no libopenblas.so.0 found: {kind} multiplies matrices slower here than it could (docs/engines.md)"
    return None
