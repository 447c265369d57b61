"""The `config.json` of a model, which makes a folder with a checkpoint as `model.safetensors` one that Hugging Face's `from_pretrained` opens."""

from __future__ import annotations

import json

from nostrain.protocol.manifest import ModelSpec


def hf_config(model: ModelSpec) -> dict[str, object]:
    """The fields of transformers' configuration. Rope theta stands where transformers 5 reads it and where mlx-lm does."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "float32",
        "hidden_size": model.hidden_size,
        "intermediate_size": model.intermediate_size,
        "num_hidden_layers": model.num_hidden_layers,
        "num_attention_heads": model.num_attention_heads,
        "num_key_value_heads": model.num_key_value_heads,
        "vocab_size": model.vocab_size,
        "max_position_embeddings": model.max_position_embeddings,
        "rope_theta": float(model.rope_theta),
        "rope_parameters": {"rope_type": "default", "rope_theta": float(model.rope_theta)},
        "tie_word_embeddings": model.tie_word_embeddings,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-06,
        "bos_token_id": None,
        "eos_token_id": None,
    }


def config_json(model: ModelSpec) -> str:
    """`hf_config` as the text of the file."""
    return json.dumps(hf_config(model), indent=2) + "\n"
