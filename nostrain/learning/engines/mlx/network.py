"""The forward pass: a decoder of Hugging Face's Llama family as functions of named tensors, over `mlx.core` alone.

Names and shapes are those of the checkpoint, so nothing is converted. Neither mlx-lm (its models import transformers: 3 s a process) nor mlx.nn
(its activations call a C++ compiler at run time on Linux) is used: docs/adr/0040.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import mlx.core as mx

from nostrain.protocol.manifest import ModelSpec

NORM_EPSILON = 1e-6

Arrays = Mapping[str, mx.array]
Norm = Callable[[str, mx.array], mx.array]


def logits(spec: ModelSpec, tensors: Arrays, tokens: mx.array) -> mx.array:
    """Float32 [batch, n, vocabulary] of integer tokens [batch, n]."""

    def norm(name: str, values: mx.array) -> mx.array:
        return mx.fast.rms_norm(values, tensors[f"{name}.weight"], NORM_EPSILON)

    embedding = tensors["model.embed_tokens.weight"]
    hidden = embedding[tokens]
    for layer in range(spec.num_hidden_layers):
        prefix = f"model.layers.{layer}"
        hidden = hidden + _attention(spec, tensors, f"{prefix}.self_attn", norm(f"{prefix}.input_layernorm", hidden))
        hidden = hidden + _gated(tensors, f"{prefix}.mlp", norm(f"{prefix}.post_attention_layernorm", hidden))
    head = embedding if spec.tie_word_embeddings else tensors["lm_head.weight"]
    return norm("model.norm", hidden) @ head.T


def token_losses(spec: ModelSpec, tensors: Arrays, windows: mx.array) -> mx.array:
    """Cross-entropy of every target, float32 [batch, n], of windows [batch, n + 1]."""
    scores = logits(spec, tensors, windows[:, :-1])
    wanted = mx.take_along_axis(scores, windows[:, 1:, None], axis=-1).squeeze(-1)
    return mx.logsumexp(scores, axis=-1) - wanted


def _linear(tensors: Arrays, name: str, values: mx.array) -> mx.array:
    out = values @ tensors[f"{name}.weight"].T
    bias = tensors.get(f"{name}.bias")
    return out if bias is None else out + bias


def _attention(spec: ModelSpec, tensors: Arrays, name: str, values: mx.array) -> mx.array:
    """Causal attention with rotary positions; key and value heads may be fewer than heads."""
    batch, length, _ = values.shape
    size = spec.hidden_size // spec.num_attention_heads

    def heads(part: str, count: int) -> mx.array:
        return _linear(tensors, f"{name}.{part}", values).reshape(batch, length, count, size).transpose(0, 2, 1, 3)

    queries, keys = (
        mx.fast.rope(heads(part, count), size, traditional=False, base=float(spec.rope_theta), scale=1.0, offset=0)
        for part, count in (("q_proj", spec.num_attention_heads), ("k_proj", spec.num_key_value_heads))
    )
    options: dict[str, Any] = {"scale": size**-0.5, "mask": "causal"}
    mixed = mx.fast.scaled_dot_product_attention(queries, keys, heads("v_proj", spec.num_key_value_heads), **options)
    return _linear(tensors, f"{name}.o_proj", mixed.transpose(0, 2, 1, 3).reshape(batch, length, -1))


def _gated(tensors: Arrays, name: str, values: mx.array) -> mx.array:
    """SwiGLU."""
    gate = _linear(tensors, f"{name}.gate_proj", values)
    return _linear(tensors, f"{name}.down_proj", gate * mx.sigmoid(gate) * _linear(tensors, f"{name}.up_proj", values))
