"""`ModelSpec` ⇄ Hugging Face's `config.json`, which makes a folder with a checkpoint as `model.safetensors` one that `from_pretrained` opens."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, Literal, cast

import msgspec

from nostrain.errors import LocalProtocolError
from nostrain.protocol.manifest import ModelSpec, RopeScaling
from nostrain.protocol.tensors import model_problem
from nostrain.units import PPM

_PPB: Final = 1_000_000_000
_CLASSES: Final = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
_READ_AS: Final[dict[str, Literal["llama", "qwen2", "qwen3"]]] = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "mistral": "llama"}
"""What a `model_type` is computed as: a Mistral that sees its whole context is a Llama."""
_BIASED: Final = ("llama", "qwen3")
_DEFAULTS: Final[dict[str, dict[str, Any]]] = {"mistral": {"sliding_window": 4096, "num_key_value_heads": 8}, "qwen3": {"head_dim": 128}}
"""Of transformers' configurations, where they are not those of all."""
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
    if model.architecture == "llama":
        fields["mlp_bias"] = model.gate_biased
    return fields if model.architecture == "qwen2" else fields | {"attention_bias": model.attention_bias}


def config_json(model: ModelSpec) -> str:
    """`hf_config` as the text of the file."""
    return json.dumps(hf_config(model), indent=2) + "\n"


def model_spec(config: Mapping[str, Any]) -> ModelSpec:
    """The model that a `config.json` describes, written by any version of transformers; where versions differ, as transformers 5 reads it.

    Raises:
        LocalProtocolError: a field is missing or wrong, or the model is none that this version trains. It says which.
    """
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in _READ_AS:
        raise LocalProtocolError(f"config.json: model_type {kind!r} is not one of {', '.join(_READ_AS)}")
    config = _DEFAULTS.get(kind, {}) | dict(config)
    try:
        if (unsupported := _unsupported(config)) is not None:
            raise LocalProtocolError(f"config.json: {unsupported}")
        rope = _rope(config)
        spec = ModelSpec(
            **{name: int(config[name]) for name in _SIZES},
            num_key_value_heads=int(config.get("num_key_value_heads") or config["num_attention_heads"]),
            rope_theta=_whole(rope["rope_theta"], 1),
            tie_word_embeddings=bool(config.get("tie_word_embeddings", False)),
            architecture=_READ_AS[kind],
            head_dim=int(config.get("head_dim") or 0),
            rms_norm_eps_ppb=_whole(config.get("rms_norm_eps", 1e-6), _PPB),
            attention_bias=bool(config.get("attention_bias", False)) and kind in _BIASED,
            rope_scaling=_rope_scaling(rope),
            mlp_bias=(bool(config.get("mlp_bias", False)) and kind == "llama") or msgspec.UNSET,
        )
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise LocalProtocolError(f"config.json: {type(error).__name__}: {error}") from error
    if (problem := model_problem(spec)) is not None:
        raise LocalProtocolError(f"config.json: {problem}")
    return spec


def _unsupported(config: Mapping[str, Any]) -> str | None:
    """What this model does that ours cannot, or None."""
    if (activation := config.get("hidden_act", "silu")) not in ("silu", "swish"):
        return f"hidden_act {activation!r}; only silu is supported"
    if config.get("quantization_config"):
        return "the weights are quantized; take the checkpoint that they were made of"
    if config.get("partial_rotary_factor") not in (None, 1):
        return "partial_rotary_factor is not supported"
    return "attention to a sliding window is not supported" if _windowed(config) else None


def _windowed(config: Mapping[str, Any]) -> bool:
    """Whether a layer sees less than the whole context."""
    window, layers = config.get("sliding_window"), config.get("layer_types")
    if config["model_type"] == "llama":
        return False
    if layers is not None and config["model_type"] != "mistral":
        return any(kind != "full_attention" for kind in layers)
    if window is None or int(window) >= int(config["max_position_embeddings"]):
        return False
    first = 0 if config["model_type"] == "mistral" else int(config.get("max_window_layers", 28))
    return bool(config.get("use_sliding_window", config["model_type"] == "mistral")) and first < int(config["num_hidden_layers"])


def _scaling(rope: RopeScaling) -> dict[str, Any]:
    if rope == _linear(rope.factor_ppm):
        return {"rope_type": "linear", "factor": rope.factor_ppm / PPM}
    return {
        "rope_type": "llama3",
        "factor": rope.factor_ppm / PPM,
        "low_freq_factor": rope.low_freq_factor_ppm / PPM,
        "high_freq_factor": rope.high_freq_factor_ppm / PPM,
        "original_max_position_embeddings": rope.original_max_position_embeddings,
    }


def _linear(factor_ppm: int) -> RopeScaling:
    """All frequencies are divided: the longest wave of a context of 1 is shorter than any there is."""
    return RopeScaling(factor_ppm, low_freq_factor_ppm=PPM, high_freq_factor_ppm=2 * PPM, original_max_position_embeddings=1)


def _rope(config: Mapping[str, Any]) -> dict[str, Any]:
    """Theta and scaling together, as transformers 5 writes them in `rope_parameters`; before, and where both are there, two fields of the top level."""
    scaling = cast("Mapping[str, Any]", config.get("rope_scaling") or config.get("rope_parameters") or {})
    return {"rope_theta": config.get("rope_theta", 10_000.0), **scaling}


def _rope_scaling(rope: Mapping[str, Any]) -> RopeScaling | None:
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return None
    if rope.get("partial_rotary_factor") not in (None, 1):
        raise ValueError("partial_rotary_factor is not supported")
    if kind == "linear":
        return _linear(_whole(rope["factor"], PPM))
    if kind != "llama3":
        raise ValueError(f"rope of type {kind!r}; only default, linear and llama3 are supported")
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
