"""The tensors of a model: names and shapes of its checkpoint, as transformers' modules have them. They follow from the `ModelSpec` alone."""

from __future__ import annotations

from nostrain.protocol.manifest import ModelSpec, TensorSpec


def model_tensors(spec: ModelSpec) -> tuple[TensorSpec, ...]:
    """Every parameter of the model, sorted by name (byte order); an output layer that is tied to the embeddings is not there twice."""
    hidden, embeddings = spec.hidden_size, (spec.vocab_size, spec.hidden_size)
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": embeddings, "model.norm.weight": (hidden,)}
    if not spec.tie_word_embeddings:
        shapes["lm_head.weight"] = embeddings
    layer = _layer(spec)
    for number in range(spec.num_hidden_layers):
        shapes |= {f"model.layers.{number}.{name}": shape for name, shape in layer.items()}
    return tuple(TensorSpec(name, shape) for name, shape in sorted(shapes.items()))


def _layer(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    hidden, between = spec.hidden_size, spec.intermediate_size
    head = hidden // spec.num_attention_heads
    queries, keys = spec.num_attention_heads * head, spec.num_key_value_heads * head
    return {
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
