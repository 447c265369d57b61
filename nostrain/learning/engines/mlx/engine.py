"""mlx as an engine: devices and the version."""

from __future__ import annotations

from importlib.metadata import version

import mlx.core as mx

from nostrain.errors import ConfigError
from nostrain.learning.engines.base import EngineOptions, Flat
from nostrain.learning.engines.mlx.memory import memory_errors
from nostrain.learning.engines.mlx.model import MlxModel
from nostrain.protocol.engines import Device, EngineKind
from nostrain.protocol.manifest import ModelSpec


class MlxEngine:
    """`base.Engine` on a Mac's GPU (Metal; nobody has run it yet) or on the CPU."""

    def __init__(self) -> None:
        self.kind: EngineKind = "mlx"
        self.version = f"mlx {version('mlx')}"

    def open_model(self, spec: ModelSpec, flat: Flat, options: EngineOptions) -> MlxModel:
        """As `base.Engine.open_model`. mlx has one default device a process: opening a model on another moves what is computed from then on.

        What earlier models left in mlx's cache is given back first.
        """
        mx.set_default_device(pick_device(options.device))
        mx.clear_cache()
        with memory_errors():
            return MlxModel(spec, flat, checkpointing=options.checkpointing)


def pick_device(wanted: Device) -> mx.Device:
    """The device that `wanted` names; `auto` prefers the GPU.

    Raises:
        ConfigError: this machine, or this build of mlx, does not have it.
    """
    there: list[Device] = ["gpu", "cpu"] if mx.metal.is_available() else ["cpu"]
    if wanted == "auto":
        wanted = there[0]
    if wanted not in there:
        raise ConfigError("engine.device", wanted, f"mlx finds only {', '.join(there)} here", "Name one of these, or auto")
    return mx.Device(mx.gpu if wanted == "gpu" else mx.cpu)
