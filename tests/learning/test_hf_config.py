"""Reading strangers' `config.json`: what older transformers wrote, and what is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from nostrain.errors import LocalProtocolError
from nostrain.protocol.hf_config import hf_config, model_spec
from nostrain.protocol.manifest import ModelSpec, RopeScaling
from nostrain.protocol.tensors import parameter_count
from nostrain.units import PPM

LLAMA_3_2_1B: dict[str, Any] = {
    "attention_bias": False,
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 16,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "factor": 32.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
    "vocab_size": 128256,
}
"""As transformers 4 wrote it."""


def test_a_config_of_transformers_4_is_read() -> None:
    spec = model_spec(LLAMA_3_2_1B)
    assert spec.rope_scaling == RopeScaling(32 * PPM, PPM, 4 * PPM, 8192)
    assert (spec.rms_norm_eps_ppb, spec.rope_theta, spec.head_dim) == (10_000, 500_000, 64)
    assert parameter_count(spec) == 1_235_814_400
    assert model_spec(hf_config(spec)) == spec


def test_what_is_left_out_has_the_defaults_of_transformers() -> None:
    few = {name: value for name, value in LLAMA_3_2_1B.items() if name.endswith(("_size", "_layers", "_heads", "_embeddings"))}
    spec = model_spec(few | {"model_type": "llama", "num_key_value_heads": None, "tie_word_embeddings": False})
    assert spec == ModelSpec(2048, 8192, 16, 32, 32, 128256, 131072)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model_type": "mixtral"}, "model_type 'mixtral' is not one of llama, qwen2, qwen3, mistral"),
        ({"hidden_act": "gelu"}, "only silu is supported"),
        ({"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 4096, "max_window_layers": 8}, "sliding window"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rope of type 'yarn'"),
        ({"rope_scaling": {"type": "dynamic", "factor": 4.0}}, "rope of type 'dynamic'"),
        ({"rope_scaling": {"type": "linear", "factor": 0.5}}, "rope scaled by 500000 ppm"),
        ({"rope_scaling": {"rope_type": "llama3"}}, "KeyError: 'factor'"),
        ({"rope_theta": 10000.5}, "10000.5 is not a multiple of 1/1"),
        ({"rms_norm_eps": 1.23e-10}, "not a multiple of 1/1000000000"),
        ({"rms_norm_eps": float("inf")}, "OverflowError"),
        ({"num_key_value_heads": 5}, "32 heads share 5 keys and values"),
        ({"hidden_size": "many"}, "ValueError"),
        ({"hidden_size": None}, "TypeError"),
    ],
)
def test_what_would_be_another_model_is_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(LocalProtocolError, match=r"config\.json: .*") as refused:
        model_spec(LLAMA_3_2_1B | changes)
    assert reason in str(refused.value)
