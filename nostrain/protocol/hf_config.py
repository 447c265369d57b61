"""`ModelSpec` ⇄ Hugging Face's `config.json`, which makes a folder with a checkpoint as `model.safetensors` one that `from_pretrained` opens."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, cast

from nostrain.errors import LocalProtocolError
from nostrain.protocol.manifest import ModelSpec, RopeScaling
from nostrain.protocol.tensors import model_problem
from nostrain.units import PPM

_PPB: Final = 1_000_000_000
_CLASSES: Final = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
_SIZES: Final = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "vocab_size",
    "max_position_embeddings",
)


def hf_config(model: ModelSpec) -> dict[str, Any]:
    """The fields of transformers' configuration. Rope theta stands where transformers 5 reads it and where mlx-lm does."""
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": float(model.rope_theta)}
    if model.rope_scaling is not None:
        rope |= _scaling(model.rope_scaling)
    fields: dict[str, Any] = {name: getattr(model, name) for name in _SIZES} | {
        "architectures": [_CLASSES[model.architecture]],
        "model_type": model.architecture,
        "dtype": "float32",
        "num_key_value_heads": model.num_key_value_heads,
        "head_dim": model.head_size,
        "rope_theta": float(model.rope_theta),
        "rope_parameters": rope,
        "tie_word_embeddings": model.tie_word_embeddings,
        "hidden_act": "silu",
        "rms_norm_eps": model.rms_norm_eps_ppb / _PPB,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    if model.rope_scaling is not None:
        fields["rope_scaling"] = _scaling(model.rope_scaling)
    return fields if model.architecture == "qwen2" else fields | {"attention_bias": model.attention_bias}


def config_json(model: ModelSpec) -> str:
    """`hf_config` as the text of the file."""
    return json.dumps(hf_config(model), indent=2) + "\n"


def model_spec(config: Mapping[str, Any]) -> ModelSpec:
    """The model that a `config.json` describes, written by any version of transformers.

    Raises:
        LocalProtocolError: a field is missing or wrong, or the model is none that this version trains. It says which.
    """
    kind = config.get("model_type")
    if kind not in _CLASSES:
        raise LocalProtocolError(f"config.json: model_type {kind!r} is not one of {', '.join(_CLASSES)}")
    if config.get("hidden_act", "silu") != "silu" or config.get("mlp_bias") or config.get("use_sliding_window"):
        raise LocalProtocolError("config.json: another activation than silu, mlp_bias or use_sliding_window are not supported")
    try:
        rope = _rope(config)
        spec = ModelSpec(
            **{name: int(config[name]) for name in _SIZES},
            num_key_value_heads=int(config.get("num_key_value_heads") or config["num_attention_heads"]),
            rope_theta=_whole(rope["rope_theta"], 1),
            tie_word_embeddings=bool(config.get("tie_word_embeddings", False)),
            architecture=kind,
            head_dim=int(config.get("head_dim") or 0),
            rms_norm_eps_ppb=_whole(config.get("rms_norm_eps", 1e-6), _PPB),
            attention_bias=bool(config.get("attention_bias", False)) and kind != "qwen2",
            rope_scaling=_rope_scaling(rope),
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise LocalProtocolError(f"config.json: {type(error).__name__}: {error}") from error
    if (problem := model_problem(spec)) is not None:
        raise LocalProtocolError(f"config.json: {problem}")
    return spec


def _scaling(rope: RopeScaling) -> dict[str, Any]:
    return {
        "rope_type": "llama3",
        "factor": rope.factor_ppm / PPM,
        "low_freq_factor": rope.low_freq_factor_ppm / PPM,
        "high_freq_factor": rope.high_freq_factor_ppm / PPM,
        "original_max_position_embeddings": rope.original_max_position_embeddings,
    }


def _rope(config: Mapping[str, Any]) -> dict[str, Any]:
    """Theta and scaling together, as transformers 5 writes them; before, they were two fields of the top level."""
    scaling = cast("Mapping[str, Any]", config.get("rope_parameters") or config.get("rope_scaling") or {})
    return {"rope_theta": config.get("rope_theta", 10_000.0), **scaling}


def _rope_scaling(rope: Mapping[str, Any]) -> RopeScaling | None:
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return None
    if kind != "llama3":
        raise ValueError(f"rope of type {kind!r}; only default and llama3 are supported")
    return RopeScaling(
        factor_ppm=_whole(rope["factor"], PPM),
        low_freq_factor_ppm=_whole(rope["low_freq_factor"], PPM),
        high_freq_factor_ppm=_whole(rope["high_freq_factor"], PPM),
        original_max_position_embeddings=int(rope["original_max_position_embeddings"]),
    )


def _whole(value: float, unit: int) -> int:
    """`value` in units of 1/`unit`. Raises ValueError when it is none of them: nothing is rounded behind anybody's back."""
    whole = round(value * unit)
    if abs(value * unit - whole) > 1e-6 * max(1.0, abs(value * unit)):
        raise ValueError(f"{value} is not a multiple of 1/{unit}")
    return whole
