"""Checkpoints as other programs leave them, saved by transformers itself: both engines have the logits that transformers has, or it is said why not."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from nostrain.errors import LocalProtocolError
from nostrain.learning.engines.base import Flat
from nostrain.learning.engines.pytorch.model import TorchModel
from nostrain.learning.pretrained import INDEX, SINGLE, load_pretrained
from nostrain.protocol.hf_config import hf_config, model_spec
from nostrain.protocol.manifest import ModelSpec

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 300,
    "max_position_embeddings": 64,
}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}
Config = dict[str, Any]
TOKENS = torch.arange(96).view(2, 48) * 3 % 300


def saved(folder: Path, family: str, edit: Callable[[Config], Config] = dict, dtype: torch.dtype = torch.float32, **options: Any) -> Path:
    """A folder as `save_pretrained` writes it, its config.json then changed by `edit`; every value drawn, biases and norms too."""
    sharding = {"max_shard_size": options.pop("shard")} if "shard" in options else {}
    torch.manual_seed(1)
    module = getattr(transformers, f"{family}ForCausalLM")(getattr(transformers, f"{family}Config")(**SIZES | options))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    module.to(dtype).save_pretrained(folder, **sharding)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(edit(config)))
    return folder


def as_version_4(config: Config) -> Config:
    """Theta and scaling at the top level, `torch_dtype`."""
    rope = config.pop("rope_parameters")
    config |= {"rope_theta": rope.pop("rope_theta"), "torch_dtype": config.pop("dtype")}
    config.pop("layer_types", None)
    return config | {"rope_scaling": None if rope["rope_type"] == "default" else rope}


def without(*names: str) -> Callable[[Config], Config]:
    return lambda config: {name: value for name, value in config.items() if name not in names}


def with_(**changes: Any) -> Callable[[Config], Config]:
    return lambda config: config | changes


def expected(folder: Path) -> Any:
    module = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    with torch.inference_mode():
        return module(input_ids=TOKENS).logits.numpy()


def check(spec: ModelSpec, flat: Flat, logits: Any) -> None:
    """Both engines, within 1e-4; mlx where it is installed."""
    with torch.inference_mode():
        ours = TorchModel(spec, flat, torch.device("cpu")).module(input_ids=TOKENS).logits.numpy()
    assert np.abs(logits).max() > 1
    np.testing.assert_allclose(ours, logits, atol=1e-4, rtol=0)
    try:
        import mlx.core as mx

        from nostrain.learning.engines.mlx.model import MlxModel
    except ImportError:
        return
    model = MlxModel(spec, flat)
    np.testing.assert_allclose(np.array(model.network.logits(model.tensors(), mx.array(TOKENS.numpy()))), logits, atol=1e-4, rtol=0)


CASES: dict[str, tuple[Any, ...]] = {
    "llama of version 4": ("Llama", as_version_4),
    "llama 3 of version 4": ("Llama", as_version_4, {"rope_parameters": LLAMA3 | {"rope_theta": 500_000.0}, "tie_word_embeddings": True}),
    "llama 3 with all keys": ("Llama", with_(rope_scaling=LLAMA3, rope_theta=900.0), {}),
    "linear rope": ("Llama", with_(), {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10_000.0}}),
    "linear rope of version 4": ("Llama", with_(rope_scaling={"type": "linear", "factor": 2.5}), {}),
    "theta alone": ("Llama", lambda config: without("rope_parameters")(config) | {"rope_theta": 777.0}, {}),
    "both biases": ("Llama", with_(), {"attention_bias": True, "mlp_bias": True, "head_dim": 12}),
    "mlp bias": ("Llama", with_(), {"mlp_bias": True, "dtype": torch.bfloat16}),
    "hardly any key": (
        "Llama",
        without("num_key_value_heads", "head_dim", "rms_norm_eps", "rope_parameters"),
        {"num_key_value_heads": None},
    ),
    "many more keys": ("Llama", with_(rope_interleaved=False, pretraining_tp=1, is_llama_config=True), {"eos_token_id": [1, 2]}),
    "qwen2 of version 4": (
        "Qwen2",
        as_version_4,
        {"sliding_window": 8, "use_sliding_window": False, "shard": "20KB", "dtype": torch.float16},
    ),
    "qwen2 whose window no layer has": ("Qwen2", with_(), {"sliding_window": 8, "use_sliding_window": True, "max_window_layers": 2}),
    "qwen2 with a wide window": ("Qwen2", as_version_4, {"sliding_window": 64, "use_sliding_window": True, "max_window_layers": 0}),
    "qwen3": ("Qwen3", with_(), {"head_dim": 16, "attention_bias": True}),
    "qwen3 without head_dim": ("Qwen3", without("head_dim"), {}),
    "mistral": ("Mistral", as_version_4, {"sliding_window": None}),
    "mistral with a wide window": ("Mistral", with_(), {"sliding_window": 4096}),
}


@pytest.mark.parametrize("case", CASES)
def test_logits_are_those_of_transformers(case: str, tmp_path: Path) -> None:
    family, edit, *options = CASES[case]
    saved(tmp_path, family, edit, **(options[0] if options else {}))
    spec, flat = load_pretrained(tmp_path)
    check(spec, flat, expected(tmp_path))
    assert model_spec(hf_config(spec)) == model_spec(json.loads((tmp_path / "config.json").read_text()) | {"head_dim": spec.head_size})


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "gemma": ("Llama", {"model_type": "gemma2"}, "model_type 'gemma2' is not one of llama, qwen2, qwen3, mistral"),
    "mixture of experts": ("Llama", {"model_type": "qwen3_moe"}, "model_type 'qwen3_moe'"),
    "no family": ("Llama", {"model_type": None}, "model_type None"),
    "mistral's window": ("Mistral", {}, "attention to a sliding window is not supported"),
    "qwen2's window": (
        "Qwen2",
        {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1, "layer_types": None},
        "sliding window",
    ),
    "qwen3's layers": ("Qwen3", {"layer_types": ["full_attention", "sliding_attention"]}, "sliding window"),
    "yarn": ("Llama", {"rope_scaling": {"type": "yarn", "factor": 4.0}}, "rope of type 'yarn'; only default, linear and llama3"),
    "part of a head": ("Llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
    "quantized": ("Llama", {"quantization_config": {"quant_method": "fp8"}}, "the weights are quantized"),
    "another activation": ("Llama", {"hidden_act": "gelu"}, "hidden_act 'gelu'"),
    "biases that are not there": ("Llama", {"mlp_bias": True}, "no tensor model.layers.0.mlp.down_proj.bias"),
    "rope that is no object": ("Llama", {"rope_scaling": "linear"}, "config.json: "),
    "layers that are no list": ("Qwen2", {"layer_types": 3}, "config.json: TypeError"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_we_do_not_compute_is_said(case: str, tmp_path: Path) -> None:
    family, changes, reason = REFUSED[case]
    saved(tmp_path, family, with_(**changes), **({"sliding_window": 8} if family == "Mistral" else {}))
    with pytest.raises(LocalProtocolError) as refused:
        load_pretrained(tmp_path)
    assert reason in str(refused.value)


def test_tied_embeddings_may_lie_under_either_name(tmp_path: Path) -> None:
    """`safetensors.torch.save_model` keeps the first name of what is shared; transformers reads both."""
    saved(tmp_path, "Llama", tie_word_embeddings=True)
    spec, flat = load_pretrained(tmp_path)
    logits, tensors = expected(tmp_path), load_file(tmp_path / SINGLE)
    shared = tensors.pop("model.embed_tokens.weight")
    save_file(tensors | {"lm_head.weight": shared}, tmp_path / SINGLE, metadata={"format": "pt"})
    assert load_pretrained(tmp_path)[1].tobytes() == flat.tobytes()
    np.testing.assert_array_equal(expected(tmp_path), logits)
    save_file(tensors, tmp_path / SINGLE, metadata={"format": "pt"})
    with pytest.raises(LocalProtocolError, match=r"no tensor model\.embed_tokens\.weight"):
        load_pretrained(tmp_path)
    assert spec.tie_word_embeddings


def test_the_single_file_counts_as_for_transformers(tmp_path: Path) -> None:
    """Beside an index that somebody left there."""
    saved(tmp_path, "Llama", shard="20KB")
    _, before = load_pretrained(tmp_path)
    halved = {name: tensor / 2 for path in tmp_path.glob("*.safetensors") for name, tensor in load_file(path).items()}
    save_file(halved, tmp_path / SINGLE, metadata={"format": "pt"})
    spec, flat = load_pretrained(tmp_path)
    assert (flat == before / 2).all()
    check(spec, flat, expected(tmp_path))


def test_a_part_that_is_missing_is_named(tmp_path: Path) -> None:
    saved(tmp_path, "Llama", shard="20KB")
    part = sorted(tmp_path.glob("*.safetensors"))[1]
    part.unlink()
    with pytest.raises(LocalProtocolError, match=f"{part.name} is not there, which {INDEX} names"):
        load_pretrained(tmp_path)


def test_older_formats_are_named(tmp_path: Path) -> None:
    saved(tmp_path, "Llama")
    (tmp_path / SINGLE).rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(LocalProtocolError, match=r"neither model\.safetensors nor .* other formats are not read"):
        load_pretrained(tmp_path)


ODD: list[Any] = [None, -1, 0, 1.5, "x", [], {}, [1], True, 10**30, float("inf"), -0.5, {"a": 1}, [[1]], "ü"]


def mutated(value: Any, rng: random.Random) -> Any:
    """One thing in it, at any depth, is something else or gone."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        kept = {name: one for name, one in value.items() if name != key}
        return kept if rng.random() < 0.15 else value | {key: mutated(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.5:
        at = rng.randrange(len(value))
        return [*value[:at], rng.choice(ODD), *value[at + 1 :]]
    return rng.choice(ODD)


def test_whatever_its_files_say_it_is_loaded_or_refused(tmp_path: Path, rng: random.Random) -> None:
    """A stranger's checkpoint must not end the engine with anything but a reason; nor is memory taken that config.json alone asks for."""
    saved(tmp_path, "Qwen2", as_version_4, shard="20KB", use_sliding_window=True, sliding_window=64)
    part = sorted(tmp_path.glob("*.safetensors"))[1]
    config, index, whole = (path.read_bytes() for path in (tmp_path / "config.json", tmp_path / INDEX, part))
    length = int.from_bytes(whole[:8], "little")
    for _ in range(25):
        header = json.dumps(mutated(json.loads(whole[8 : 8 + length]), rng)).encode()
        noise = bytearray(whole)
        noise[rng.randrange(8 + length)] = rng.randrange(256)
        for path, content in (
            (tmp_path / "config.json", json.dumps(mutated(json.loads(config), rng)).encode()),
            (tmp_path / INDEX, json.dumps(mutated(json.loads(index), rng)).encode()),
            (part, len(header).to_bytes(8, "little") + header + whole[8 + length :]),
            (part, bytes(noise)),
        ):
            before = path.read_bytes()
            path.write_bytes(content)
            with contextlib.suppress(LocalProtocolError):
                assert np.isfinite(load_pretrained(tmp_path)[1]).all()
            path.write_bytes(before)
    wide = json.loads(config) | {"vocab_size": 1 << 20, "hidden_size": 1 << 17}
    (tmp_path / "config.json").write_text(json.dumps(wide))
    with pytest.raises(LocalProtocolError, match="is of shape"):
        load_pretrained(tmp_path)
