"""The tensors of a model: names and shapes of its checkpoint, as transformers' modules have them. They follow from the `ModelSpec` alone.

So a manifest does not list them, and has room for a model of any depth (ADR 0038).
"""

from __future__ import annotations

from math import prod

from nostrain.protocol.limits import MAX_LAYERS, MAX_WIDTH
from nostrain.protocol.manifest import ModelSpec, RopeScaling, TensorSpec
from nostrain.units import PPM

_BIASED = ("q_proj", "k_proj", "v_proj", "o_proj")
_GATED = ("down_proj", "gate_proj", "up_proj")


def model_problem(spec: ModelSpec) -> str | None:
    """Why there can be no such model, in one line; None if there can. Only then may `model_tensors` be asked for."""
    sides = (spec.hidden_size, spec.intermediate_size, spec.vocab_size, spec.max_position_embeddings)
    if not 1 <= spec.num_hidden_layers <= MAX_LAYERS or not all(1 <= side <= MAX_WIDTH for side in sides):
        return f"a model of {spec.num_hidden_layers} layers, with sides {', '.join(map(str, sides))}"
    heads, keys = spec.num_attention_heads, spec.num_key_value_heads
    if not 1 <= keys <= heads <= MAX_WIDTH or heads % keys:
        return f"{heads} heads share {keys} keys and values"
    if (not spec.head_dim and spec.hidden_size % heads) or not 2 <= spec.head_size <= MAX_WIDTH or spec.head_size % 2:
        return f"{heads} heads of width {spec.head_dim or spec.hidden_size / heads:g}"
    if not 1 <= spec.rms_norm_eps_ppb <= 1_000_000 or not 1 <= spec.rope_theta <= 1 << 40:
        return f"an epsilon of {spec.rms_norm_eps_ppb} ppb, or a rope theta of {spec.rope_theta}"
    if spec.architecture == "qwen2" and spec.attention_bias:
        return "qwen2 has no attention_bias to choose"
    if spec.architecture != "llama" and spec.gate_biased:
        return f"{spec.architecture} has no mlp_bias"
    return _rope_problem(spec.rope_scaling) if spec.rope_scaling is not None else None


def _rope_problem(rope: RopeScaling) -> str | None:
    low, high = rope.low_freq_factor_ppm, rope.high_freq_factor_ppm
    if not PPM <= rope.factor_ppm <= 1024 * PPM or not 1 <= low < high <= 1024 * PPM:
        return f"rope scaled by {rope.factor_ppm} ppm between {low} and {high} ppm"
    if not 1 <= rope.original_max_position_embeddings <= MAX_WIDTH:
        return f"rope scaled from {rope.original_max_position_embeddings} positions"
    return None


def model_tensors(spec: ModelSpec) -> tuple[TensorSpec, ...]:
    """Every parameter of the model, sorted by name (byte order); an output layer that is tied to the embeddings is not there twice."""
    shapes = _around(spec)
    layer = _layer(spec)
    for number in range(spec.num_hidden_layers):
        shapes |= {f"model.layers.{number}.{name}": shape for name, shape in layer.items()}
    return tuple(TensorSpec(name, shape) for name, shape in sorted(shapes.items()))


def parameter_count(spec: ModelSpec) -> int:
    """How many values the tensors have together, without listing them."""
    layer = sum(prod(shape) for shape in _layer(spec).values())
    return spec.num_hidden_layers * layer + sum(prod(shape) for shape in _around(spec).values())


def _around(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    embeddings = (spec.vocab_size, spec.hidden_size)
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": embeddings, "model.norm.weight": (spec.hidden_size,)}
    return shapes if spec.tie_word_embeddings else shapes | {"lm_head.weight": embeddings}


def _layer(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    hidden, between = spec.hidden_size, spec.intermediate_size
    queries, keys = spec.num_attention_heads * spec.head_size, spec.num_key_value_heads * spec.head_size
    shapes: dict[str, tuple[int, ...]] = {
        "input_layernorm.weight": (hidden,),
        "mlp.down_proj.weight": (hidden, between),
        "mlp.gate_proj.weight": (between, hidden),
        "mlp.up_proj.weight": (between, hidden),
        "post_attention_layernorm.weight": (hidden,),
        "self_attn.k_proj.weight": (keys, hidden),
        "self_attn.o_proj.weight": (hidden, queries),
        "self_attn.q_proj.weight": (queries, hidden),
        "self_attn.v_proj.weight": (keys, hidden),
    }
    biased = _BIASED[:3] if spec.architecture == "qwen2" else _BIASED if spec.attention_bias else ()
    shapes |= {f"self_attn.{name}.bias": shapes[f"self_attn.{name}.weight"][:1] for name in biased}
    if spec.gate_biased:
        shapes |= {f"mlp.{name}.bias": shapes[f"mlp.{name}.weight"][:1] for name in _GATED}
    if spec.architecture == "qwen3":
        shapes |= {f"self_attn.{name}_norm.weight": (spec.head_size,) for name in ("q", "k")}
    return shapes
