"""transformers' module for every architecture. Only the family that is asked for is imported: each costs a good second."""

from __future__ import annotations

from typing import Any, Final, assert_never

import torch

from nostrain.errors import LocalProtocolError
from nostrain.protocol.hf_config import hf_config
from nostrain.protocol.manifest import ModelSpec
from nostrain.protocol.tensors import model_problem

ATTENTION: Final = "nostrain_causal"
"""transformers' `sdpa` under a name of ours, for which it makes no mask: windows are whole, so attention is causal and nothing else. For its own name it asks
the device, in every pass, whether positions begin anew in the middle of a window; and a compiled model, which cannot ask, gets a mask that rules out the
kernels for causal attention."""


def build_module(spec: ModelSpec) -> torch.nn.Module:
    """The module for `spec`, float32, with values of no meaning.

    Raises:
        LocalProtocolError: there can be no such model.
    """
    if (problem := model_problem(spec)) is not None:
        raise LocalProtocolError(f"model: {problem}")
    module: torch.nn.Module
    match spec.architecture:
        case "llama":
            from transformers.models.llama import configuration_llama, modeling_llama

            module = modeling_llama.LlamaForCausalLM(configuration_llama.LlamaConfig.from_dict(_config(spec)))
        case "qwen2":
            from transformers.models.qwen2 import configuration_qwen2, modeling_qwen2

            module = modeling_qwen2.Qwen2ForCausalLM(configuration_qwen2.Qwen2Config.from_dict(_config(spec)))
        case "qwen3":
            from transformers.models.qwen3 import configuration_qwen3, modeling_qwen3

            module = modeling_qwen3.Qwen3ForCausalLM(configuration_qwen3.Qwen3Config.from_dict(_config(spec)))
        case _:
            assert_never(spec.architecture)
    module.train(False)  # dropout is zero everywhere; this keeps it so whatever the defaults become
    return module


def _config(spec: ModelSpec) -> dict[str, Any]:
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.modeling_utils import AttentionInterface

    AttentionInterface.register(ATTENTION, sdpa_attention_forward)
    return {**hf_config(spec), "attn_implementation": ATTENTION}
