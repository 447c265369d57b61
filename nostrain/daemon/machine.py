"""What this machine is to an engine: how much memory it has, and what its speed depends on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from nostrain.config.schema import EngineConfig

_NVIDIA: Final = Path("/proc/driver/nvidia/version")
_LIMIT: Final = Path("/sys/fs/cgroup/memory.max")
"""The limit of our container or service, where there is one; `max` otherwise."""


def engine_memory(config: EngineConfig) -> int:
    """Bytes: what the operator says; else the machine's memory where the engine computes in it; 0 where it may have a card with memory of its own."""
    if config.memory_mb:
        return config.memory_mb << 20
    if config.device == "cuda" or (config.device == "auto" and config.kind == "pytorch" and _NVIDIA.exists()):
        return 0
    installed = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = _LIMIT.read_text().strip() if _LIMIT.is_file() else "max"
    return min(installed, int(limit)) if limit.isascii() and limit.isdigit() else installed


def engine_machine(config: EngineConfig) -> str:
    """What the speed of training depends on, as far as the configuration says it."""
    options = [name for name in ("activation_checkpointing", "compile") if getattr(config, name)]
    return " ".join(
        (config.kind, config.device, config.precision, f"threads={config.threads}", f"micro_batch={config.micro_batch}", *options)
    )
