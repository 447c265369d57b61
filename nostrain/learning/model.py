"""The model: a Llama of `transformers` whose parameters and gradients are views of two flat float32 vectors.

One flat vector is what the codec, the optimizer and the checkpoint work on: a sparse delta is applied by index, without a copy of the model.
torch and transformers are imported here and by `inner` and `evaluate` only, so that an aggregating engine needs neither.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaForCausalLM

from nostrain.errors import LocalProtocolError
from nostrain.protocol.manifest import ModelSpec, TensorSpec
from nostrain.sparseloco.aggregate import canonical_zero
from nostrain.sparseloco.checkpoint import load_checkpoint_untrusted
from nostrain.sparseloco.layout import tensor_sizes


class FlatModel:
    """A Llama over one flat vector. `flat` [size] float32 is shared memory of the tensor `parameters`."""

    def __init__(self, spec: ModelSpec, tensors: Sequence[TensorSpec], flat: NDArray[np.float32]) -> None:
        """Build the model of `spec` with the values `flat` (copied).

        Raises:
            LocalProtocolError: the tensors are not those of the model.
        """
        module = _build(spec)
        if tensor_specs(module) != tuple(tensors):
            raise LocalProtocolError("the manifest's tensors are not those of its model")
        # torch's allocator aligns to 64 bytes; numpy's does not, and the kernels' results may depend on alignment.
        self.parameters = torch.empty(len(flat), dtype=torch.float32)
        self.flat: NDArray[np.float32] = self.parameters.numpy()
        self.flat[:] = flat
        self.module = module
        self._tensors = tuple(tensors)
        for parameter, part in self._views(self.parameters):
            parameter.data = part

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

    def token_losses(self, windows: torch.Tensor) -> torch.Tensor:
        """Cross-entropy of every target, float32 [batch · n], of int64 windows [batch, n + 1]."""
        logits = self.module(input_ids=windows[:, :-1], use_cache=False).logits
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten(), reduction="none")


def load_model(spec: ModelSpec, tensors: Sequence[TensorSpec], checkpoint: str) -> FlatModel:
    """The model at a checkpoint file.

    Raises:
        RemoteProtocolError: the file is not a canonical checkpoint of `tensors`.
        LocalProtocolError: the tensors are not those of the model.
    """
    return FlatModel(spec, tensors, load_checkpoint_untrusted(checkpoint, tensors))


def initial_parameters(spec: ModelSpec, seed: int) -> tuple[tuple[TensorSpec, ...], NDArray[np.float32]]:
    """The tensors of the model, sorted by name, and their flat initial values drawn from `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = _build(spec)
    tensors = tensor_specs(module)
    by_name = dict(module.named_parameters())
    flat = torch.cat([by_name[tensor.name].detach().flatten() for tensor in tensors]).numpy()
    return tensors, canonical_zero(flat)


def tensor_specs(module: torch.nn.Module) -> tuple[TensorSpec, ...]:
    """Name and shape of every parameter, sorted by name; tied weights appear once."""
    return tuple(TensorSpec(name, tuple(parameter.shape)) for name, parameter in sorted(module.named_parameters()))


def config_json(spec: ModelSpec) -> str:
    """The `config.json` that makes a folder with the checkpoint as `model.safetensors` one that `from_pretrained` opens.

    Rope theta stands in `rope_parameters` (transformers 5) and at the top level (mlx-lm reads it there).
    """
    fields = _config(spec).to_dict()
    fields |= {"architectures": ["LlamaForCausalLM"], "dtype": "float32", "rope_theta": float(spec.rope_theta)}
    return json.dumps(fields, indent=2, sort_keys=True) + "\n"


def export_config(spec: ModelSpec, path: str | os.PathLike[str]) -> None:
    """Write `config_json` to `path`."""
    Path(path).write_text(config_json(spec))


def _config(spec: ModelSpec) -> LlamaConfig:
    if spec.hidden_size % spec.num_attention_heads or spec.num_attention_heads % spec.num_key_value_heads:
        raise LocalProtocolError("model: heads must divide the hidden size, and key-value heads the heads")
    return LlamaConfig(
        hidden_size=spec.hidden_size,
        intermediate_size=spec.intermediate_size,
        num_hidden_layers=spec.num_hidden_layers,
        num_attention_heads=spec.num_attention_heads,
        num_key_value_heads=spec.num_key_value_heads,
        vocab_size=spec.vocab_size,
        max_position_embeddings=spec.max_position_embeddings,
        rope_parameters={"rope_type": "default", "rope_theta": float(spec.rope_theta)},
        tie_word_embeddings=spec.tie_word_embeddings,
        bos_token_id=None,
        eos_token_id=None,
    )


def _build(spec: ModelSpec) -> LlamaForCausalLM:
    module = LlamaForCausalLM(_config(spec))
    module.train(False)  # dropout is zero everywhere; this keeps it so whatever the defaults become
    return module
