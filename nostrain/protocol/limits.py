"""Bounds that every reader enforces before it believes anything (design section 8)."""

from __future__ import annotations

from typing import Final

MAX_EVENT_BYTES: Final = 16 * 1024
MAX_WORKERS: Final = 100
MAX_VALIDATORS: Final = 32
MAX_LEVELS: Final = 16
MAX_ORACLE_ITEMS: Final = 25
MAX_ROUNDS: Final = 100_000
MAX_BLOB_BYTES: Final = 1 << 40
MAX_PARAMETERS: Final = 1 << 38
MAX_TENSORS: Final = 4096
MAX_ORPHANS: Final = 512
"""Events kept while what they refer to has not arrived yet."""
