"""Adapter of `ports.engine`: the daemon's side of the engine process. Imports neither torch nor numpy; tensors stay over there."""

from nostrain.engine.process import EngineProcess, EngineSettings

__all__ = ["EngineProcess", "EngineSettings"]
