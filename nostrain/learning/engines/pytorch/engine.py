"""torch as an engine: threads, determinism, devices, precision."""

from __future__ import annotations

import os
from typing import Final

import torch

from nostrain.errors import ConfigError
from nostrain.learning.engines.base import THREADS_VARIABLE, EngineOptions, Flat
from nostrain.learning.engines.pytorch.memory import memory_errors
from nostrain.learning.engines.pytorch.model import TorchModel
from nostrain.protocol.engines import Device, EngineKind, Precision
from nostrain.protocol.manifest import ModelSpec

WIDE: Final = 512
"""From this `hidden_size` on, bfloat16 products saved a fifth and more of a step on a processor that has them; below, converting took what they saved."""


class PyTorchEngine:
    """`base.Engine` with as many threads as the environment says (one if it does not) and deterministic kernels only.

    The number of threads can change the last bit of a sum: a run that must repeat bit by bit keeps it.
    """

    def __init__(self) -> None:
        torch.set_num_threads(int(os.environ.get(THREADS_VARIABLE, "1")))
        torch.use_deterministic_algorithms(True)
        # On by default, to show which kernels read memory that nobody wrote: every buffer would be written twice.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        torch.set_float32_matmul_precision("highest")  # no TF32: losses are measured in float32
        self.kind: EngineKind = "pytorch"
        self.version = f"pytorch {torch.__version__}"

    def open_model(self, spec: ModelSpec, flat: Flat, options: EngineOptions) -> TorchModel:
        """As `base.Engine.open_model`. What earlier models left in the device's cache is given back first."""
        device = pick_device(options.device)
        if device.type == "cuda":
            torch.cuda.empty_cache()
        elif device.type == "mps":
            torch.mps.empty_cache()
        with memory_errors():
            return TorchModel(
                spec,
                flat,
                device,
                dtype=pick_dtype(options.precision, device, spec),
                checkpointing=options.checkpointing,
                compiled=options.compile,
            )


def pick_device(wanted: Device) -> torch.device:
    """The device that `wanted` names; `auto` prefers CUDA to MPS to the CPU.

    Raises:
        ConfigError: this machine, or this build of torch, does not have it.
    """
    present: dict[Device, bool] = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        wanted = next(device for device, there in present.items() if there)
    if not present.get(wanted, False):
        there = ", ".join(device for device, found in present.items() if found)
        raise ConfigError("engine.device", wanted, f"pytorch finds only {there} here", "Name one of these, or auto")
    return torch.device(wanted)


def pick_dtype(wanted: Precision, device: torch.device, model: ModelSpec) -> torch.dtype:
    """What the inner steps' matrix products are computed in; `auto`: bfloat16 where it was seen to gain, else float32.

    By what the device is and not by a stopwatch: the same machine has to choose the same in every run (docs/adr/0058).
    """
    if wanted != "auto":
        return torch.bfloat16 if wanted == "bfloat16" else torch.float32
    if device.type == "cuda":
        # Without the argument, torch says yes of older cards too, which would only emulate it.
        gains = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        gains = device.type == "cpu" and model.hidden_size >= WIDE and _multiplies_bfloat16()
    return torch.bfloat16 if gains else torch.float32


def _multiplies_bfloat16() -> bool:
    """Whether this processor has instructions for it that oneDNN uses."""
    onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return bool(onednn and torch.cpu.get_capabilities().get("avx512_bf16", False))
