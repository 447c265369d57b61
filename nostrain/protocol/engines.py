"""Which engines there are, and on what they run: a setting of every participant's own, nothing that a run prescribes."""

from __future__ import annotations

from typing import Final, Literal

EngineKind = Literal["pytorch", "mlx"]
Device = Literal["auto", "cpu", "cuda", "mps", "gpu"]
"""`auto`: the fastest one that is there. `cuda` and `mps` are pytorch's, `gpu` is mlx's name for a Mac's (Metal)."""

Precision = Literal["auto", "float32", "bfloat16"]
"""Of the inner steps' matrix products. Parameters, moments and what validators measure are float32 in any case."""

DEVICES: Final[dict[EngineKind, tuple[Device, ...]]] = {"pytorch": ("auto", "cpu", "cuda", "mps"), "mlx": ("auto", "cpu", "gpu")}
"""The devices of each engine."""
