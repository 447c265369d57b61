"""The forward pass: a decoder of Hugging Face's Llama family as functions of named tensors, over `mlx.core` alone.

Names and shapes are those of the checkpoint, so nothing is converted. Neither mlx-lm (its models import transformers: 3 s a process) nor mlx.nn
(its activations call a C++ compiler at run time on Linux) is used: docs/adr/0040.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from nostrain.protocol.manifest import ModelSpec, RopeScaling
from nostrain.units import PPM

Arrays = Mapping[str, mx.array]


class Network:
    """The functions of one `ModelSpec`; it holds no parameters. `checkpointing`: a backward pass computes each layer's activations a second time."""

    def __init__(self, spec: ModelSpec, *, checkpointing: bool = False) -> None:
        self._spec, self._epsilon = spec, spec.rms_norm_eps_ppb / 1e9
        self._periods = mx.array(rope_periods(spec))
        # What `mx.checkpoint` is to differentiate by has to be among the arguments: so a layer is a function of its own tensors.
        self._layer = mx.checkpoint(self._plain_layer) if checkpointing else self._plain_layer

    def logits(self, tensors: Arrays, tokens: mx.array) -> mx.array:
        """Float32 [batch, n, vocabulary] of integer tokens [batch, n]."""
        embedding = tensors["model.embed_tokens.weight"]
        hidden = embedding[tokens]
        for layer in range(self._spec.num_hidden_layers):
            hidden = self._layer(_below(tensors, f"model.layers.{layer}."), hidden)
        head = embedding if self._spec.tie_word_embeddings else tensors["lm_head.weight"]
        return self._norm(tensors, "model.norm", hidden) @ head.T

    def token_losses(self, tensors: Arrays, windows: mx.array) -> mx.array:
        """Cross-entropy of every target, float32 [batch, n], of windows [batch, n + 1]."""
        scores = self.logits(tensors, windows[:, :-1])
        wanted = mx.take_along_axis(scores, windows[:, 1:, None], axis=-1).squeeze(-1)
        return mx.logsumexp(scores, axis=-1) - wanted

    def _plain_layer(self, tensors: Arrays, hidden: mx.array) -> mx.array:
        hidden = hidden + self._attention(tensors, "self_attn", self._norm(tensors, "input_layernorm", hidden))
        return hidden + _gated(tensors, "mlp", self._norm(tensors, "post_attention_layernorm", hidden))

    def _norm(self, tensors: Arrays, name: str, values: mx.array) -> mx.array:
        return mx.fast.rms_norm(values, tensors[f"{name}.weight"], self._epsilon)

    def _attention(self, tensors: Arrays, name: str, values: mx.array) -> mx.array:
        """Causal attention with rotary positions; there may be fewer key and value heads than heads."""
        batch, length, _ = values.shape
        spec, size = self._spec, self._spec.head_size

        def heads(part: str, count: int) -> mx.array:
            split = _linear(tensors, f"{name}.{part}_proj", values).reshape(batch, length, count, size)
            if f"{name}.{part}_norm.weight" in tensors:  # qwen3: queries and keys
                split = self._norm(tensors, f"{name}.{part}_norm", split)
            return split.transpose(0, 2, 1, 3)

        queries, keys = (
            mx.fast.rope(heads(part, count), size, traditional=False, base=None, scale=1.0, offset=0, freqs=self._periods)
            for part, count in (("q", spec.num_attention_heads), ("k", spec.num_key_value_heads))
        )
        options: dict[str, Any] = {"scale": size**-0.5, "mask": "causal"}
        mixed = mx.fast.scaled_dot_product_attention(queries, keys, heads("v", spec.num_key_value_heads), **options)
        return _linear(tensors, f"{name}.o_proj", mixed.transpose(0, 2, 1, 3).reshape(batch, length, -1))


def rope_periods(spec: ModelSpec) -> NDArray[np.float32]:
    """Positions a radian, for every pair of coordinates of a head: theta^(2i/d), stretched as Llama 3 does if `rope_scaling` is given."""
    periods: NDArray[np.float64] = np.float64(spec.rope_theta) ** (np.arange(0, spec.head_size, 2) / spec.head_size)
    if spec.rope_scaling is not None:
        periods = _stretched(periods, spec.rope_scaling)
    return periods.astype(np.float32)


def _stretched(periods: NDArray[np.float64], rope: RopeScaling) -> NDArray[np.float64]:
    """Wavelengths beyond the old context / `low` are stretched by the factor, those below it / `high` are kept, with a smooth passage between."""
    low, high, factor = (part / PPM for part in (rope.low_freq_factor_ppm, rope.high_freq_factor_ppm, rope.factor_ppm))
    turns = rope.original_max_position_embeddings / (2 * math.pi * periods)
    kept = np.clip((turns - low) / (high - low), 0, 1)
    stretched: NDArray[np.float64] = periods / ((1 - kept) / factor + kept)
    return stretched


def _below(tensors: Arrays, prefix: str) -> dict[str, mx.array]:
    """The tensors whose names begin so, under the rest of their names."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _linear(tensors: Arrays, name: str, values: mx.array) -> mx.array:
    out = values @ tensors[f"{name}.weight"].T
    bias = tensors.get(f"{name}.bias")
    return out if bias is None else out + bias


def _gated(tensors: Arrays, name: str, values: mx.array) -> mx.array:
    """SwiGLU."""
    gate = _linear(tensors, f"{name}.gate_proj", values)
    return _linear(tensors, f"{name}.down_proj", gate * mx.sigmoid(gate) * _linear(tensors, f"{name}.up_proj", values))
