"""The engines: one folder for each framework, each behind `base.Model`. Only the chosen one is imported."""

from __future__ import annotations

from functools import lru_cache
from typing import assert_never

from nostrain.errors import ConfigError
from nostrain.learning.engines.base import Engine
from nostrain.protocol.engines import EngineKind


@lru_cache(maxsize=2)
def load_engine(kind: EngineKind) -> Engine:
    """Import the framework, once.

    Raises:
        ConfigError: it is not installed.
    """
    match kind:
        case "pytorch":
            try:
                from nostrain.learning.engines.pytorch.engine import PyTorchEngine
            except ImportError as error:
                raise ConfigError("engine.kind", kind, f"is not installed: {error}", "Install the extra `torch`") from error
            return PyTorchEngine()
        case "mlx":
            try:
                from nostrain.learning.engines.mlx.engine import MlxEngine
            except ImportError as error:
                raise ConfigError("engine.kind", kind, f"is not installed: {error}", "Install the extra `mlx`") from error
            return MlxEngine()
        case _:
            assert_never(kind)
