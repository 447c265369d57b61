"""The model: a module of `transformers` whose parameters and gradients are views of two flat float32 vectors.

One flat vector is what the codec, the optimizer and the checkpoint work on: a sparse delta is applied by index, without a copy of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from nostrain.errors import LocalProtocolError
from nostrain.learning.engines.base import Flat, Moments, Windows
from nostrain.learning.engines.pytorch.families import build_module
from nostrain.learning.engines.pytorch.inner import inner_steps
from nostrain.learning.engines.pytorch.memory import memory_errors
from nostrain.protocol.manifest import ModelSpec, TensorSpec, TrainingSpec
from nostrain.protocol.tensors import model_tensors
from nostrain.sparseloco.layout import tensor_sizes

_BLOCK: Final = 1 << 20


class TorchModel:
    """`base.Model` over the tensor `parameters` [size], float32 on `device`."""

    def __init__(
        self,
        spec: ModelSpec,
        flat: Flat,
        device: torch.device,
        *,
        dtype: torch.dtype = torch.float32,
        checkpointing: bool = False,
        compiled: bool = False,
    ) -> None:
        """Build the model of `spec` with the values `flat` (copied). `dtype` is that of the inner steps' products; the rest as `base.EngineOptions`.

        Raises:
            LocalProtocolError: transformers' model has other tensors than ours, or `flat` another size.
        """
        module, self._tensors = build_module(spec), model_tensors(spec)
        if tensor_specs(module) != self._tensors or flat.shape != (sum(tensor_sizes(self._tensors)),):
            raise LocalProtocolError(
                f"{len(flat)} parameters are not those of the model, or transformers' model has other tensors than ours"
            )
        # torch's allocator aligns to 64 bytes; numpy's does not, and the kernels' results may depend on alignment.
        self.parameters = torch.empty(len(flat), dtype=torch.float32, device=device)
        self.module = module.to(device)
        for parameter, part in self._views(self.parameters):
            parameter.data = part  # what the module had is gone before the pages of the new vector are touched
        self.write(flat)
        self._dtype, self._checkpointing = dtype, checkpointing
        if checkpointing:
            # The second name is that of transformers before 6, from 5.23 on deprecated.
            enable = getattr(self.module, "activation_checkpointing_enable", None) or self.module.gradient_checkpointing_enable
            enable({"use_reentrant": False})  # type: ignore[operator]
        self._forward = torch.compile(self.module) if compiled else self.module

    def read(self) -> Flat:
        """As `base.Model.read`: a view on the CPU, else a copy."""
        flat: Flat = self.parameters.cpu().numpy()
        return flat

    def attach_gradient(self) -> torch.Tensor:
        """Make every parameter's gradient a view of one flat vector, and return it (zeros)."""
        gradient = torch.zeros_like(self.parameters)
        for parameter, part in self._views(gradient):
            parameter.grad = part
        return gradient

    def _views(self, flat: torch.Tensor) -> Iterator[tuple[torch.nn.Parameter, torch.Tensor]]:
        by_name = dict(self.module.named_parameters())
        offset = 0
        for tensor, size in zip(self._tensors, tensor_sizes(self._tensors), strict=True):
            yield by_name[tensor.name], flat[offset : offset + size].view(tensor.shape)
            offset += size

    def training_losses(self, windows: torch.Tensor) -> torch.Tensor:
        """`token_losses`, with products in the chosen precision; the parameters, and so their gradients, stay float32."""
        with torch.autocast(windows.device.type, self._dtype, enabled=self._dtype != torch.float32):
            return token_losses(self._forward, windows)

    def inner_steps(self, windows: Windows, training: TrainingSpec, steps_done: int, moments: Moments, micro_batch: int = 0) -> list[float]:
        """As `base.Model.inner_steps`."""
        # transformers recomputes activations in training mode only; nothing else depends on the mode, there being no dropout.
        self.module.train(self._checkpointing)
        try:
            with memory_errors():
                return inner_steps(self, windows, training, steps_done, moments, micro_batch)
        finally:
            self.module.train(False)
            self.module.zero_grad(set_to_none=True)  # as much memory as the parameters, needed by nobody until the next training

    def window_losses(self, windows: Windows, batch: int) -> NDArray[np.float64]:
        """As `base.Model.window_losses`."""
        missing = -len(windows) % batch
        padded = torch.from_numpy(np.concatenate([windows, np.repeat(windows[-1:], missing, axis=0)])).to(self.parameters.device)
        with memory_errors(), torch.inference_mode():
            losses = torch.stack([token_losses(self.module, part) for part in torch.split(padded, batch)]).cpu()
            means = [part.to(torch.float64).view(batch, -1).mean(dim=1) for part in losses]
            ours: NDArray[np.float64] = torch.cat(means).numpy()[: len(windows)]
        return ours

    def write(self, flat: Flat) -> None:
        """As `base.Model.write`. By way of copies of blocks: torch warns of memory that may not be written, as a mapped file's."""
        for at in range(0, len(flat), _BLOCK):
            block = torch.from_numpy(np.array(flat[at : at + _BLOCK]))
            self.parameters[at : at + len(block)].copy_(block)

    def replace(self, indices: NDArray[np.signedinteger[Any]], values: Flat) -> Flat:
        """As `base.Model.replace`."""
        at = torch.from_numpy(indices.astype(np.int64)).to(self.parameters.device)
        kept: Flat = self.parameters[at].cpu().numpy()
        self.parameters[at] = torch.from_numpy(values).to(self.parameters.device)
        return kept


def token_losses(forward: Callable[..., Any], windows: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of every target, float32 [batch · n], of int64 windows [batch, n + 1] on the model's device.

    Flat: of more dimensions CUDA has no deterministic kernel.
    """
    logits = forward(input_ids=windows[:, :-1], use_cache=False).logits.float()
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten(), reduction="none")


def tensor_specs(module: torch.nn.Module) -> tuple[TensorSpec, ...]:
    """Name and shape of every parameter, sorted by name; tied weights appear once."""
    return tuple(TensorSpec(name, tuple(parameter.shape)) for name, parameter in sorted(module.named_parameters()))
