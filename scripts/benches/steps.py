"""Inner steps as an engine takes them, beside the loop that one would write with the framework's own model and optimizer.

    scripts/bench steps [--engine pytorch|mlx] [--size tiny|10m|100m] [--rounds 5] [--own-blas] [--also bfloat16,compile,checkpointing]

The same batches, initial parameters, float32, threads and matrix product; one process, interleaved. Times are seconds of a core. Losses are
compared before anything is timed. By hand: transformers' LlamaForCausalLM, clip_grad_norm_ and torch.optim.AdamW; or mlx-lm's Llama, mlx.nn and
mlx.optimizers (mlx-lm is no dependency of ours: `pip install mlx-lm`). In the devnet a round is 30 steps; here 2 to 10 of them make a turn.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
from _side_by_side import side_by_side

from nostrain.learning.blas import prepare_process
from nostrain.learning.engines import load_engine
from nostrain.learning.engines.base import ADAM_EPSILON, EngineOptions, Flat, Moments, Windows, learning_rate
from nostrain.learning.initial import initial_parameters
from nostrain.protocol.engines import EngineKind
from nostrain.protocol.hf_config import config_json, hf_config
from nostrain.protocol.manifest import ModelSpec, TrainingSpec
from nostrain.protocol.tensors import model_tensors, parameter_count
from nostrain.sparseloco.checkpoint import write_checkpoint
from nostrain.units import PPM

TRAINING = TrainingSpec()
BETAS = (TRAINING.beta1_ppm / PPM, TRAINING.beta2_ppm / PPM)
DECAY, LIMIT = TRAINING.weight_decay_ppm / PPM, TRAINING.clip_ppm / PPM
OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "bfloat16": {"precision": "bfloat16"},
    "compile": {"compile": True},
    "checkpointing": {"checkpointing": True},
    "bfloat16+compile": {"precision": "bfloat16", "compile": True},
}
"""What an engine can be told beside the plain float32."""

Steps = Callable[[Windows], list[float]]
"""Train on batches, one after the other; the losses."""


@dataclass(frozen=True)
class Size:
    """A model, and how many steps make a turn."""

    model: ModelSpec
    steps: int


SIZES = {
    "tiny": Size(ModelSpec(), 10),
    "10m": Size(ModelSpec(hidden_size=384, intermediate_size=1152, num_hidden_layers=5, num_attention_heads=6, num_key_value_heads=6), 5),
    "100m": Size(
        ModelSpec(hidden_size=768, intermediate_size=2048, num_hidden_layers=14, num_attention_heads=12, num_key_value_heads=12), 2
    ),
}


def ours(kind: EngineKind, spec: ModelSpec, flat: Flat, **options: Any) -> Steps:
    """An engine's inner steps, as a round calls them."""
    model = load_engine(kind).open_model(spec, flat, EngineOptions(kind, "cpu", **{"precision": "float32", **options}))
    moments = Moments.fresh(len(flat))
    return lambda windows: model.inner_steps(windows, TRAINING, moments.steps, moments)


def torch_by_hand(folder: Path) -> Steps:
    """transformers' model, torch's optimizer, as in any tutorial."""
    import torch
    from transformers.models.llama import LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, betas=BETAS, eps=ADAM_EPSILON, weight_decay=DECAY)
    taken = 0

    def steps(windows: Windows) -> list[float]:
        nonlocal taken
        torch.use_deterministic_algorithms(False)  # ours turns it on for the process
        losses = []
        for begin in range(0, len(windows), TRAINING.batch_size):
            tokens = torch.from_numpy(windows[begin : begin + TRAINING.batch_size])
            optimizer.param_groups[0]["lr"] = learning_rate(TRAINING, taken)
            logits = model(input_ids=tokens[:, :-1], use_cache=False).logits
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(parameters, LIMIT)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
            taken += 1
        torch.use_deterministic_algorithms(True)
        return losses

    return steps


def mlx_by_hand(folder: Path, spec: ModelSpec) -> Steps:
    """mlx-lm's model, mlx's optimizer, as in its examples."""
    import mlx.core as mx
    from mlx import nn, optimizers
    from mlx_lm.models.llama import Model, ModelArgs

    model = Model(ModelArgs.from_dict(hf_config(spec)))
    model.load_weights(str(folder / "model.safetensors"))
    optimizer = optimizers.AdamW(0.0, betas=list(BETAS), eps=ADAM_EPSILON, weight_decay=DECAY, bias_correction=True)

    def loss_of(tokens: mx.array) -> mx.array:
        return nn.losses.cross_entropy(model(tokens[:, :-1]), tokens[:, 1:], reduction="mean")

    slope = nn.value_and_grad(model, loss_of)  # type: ignore[attr-defined]
    taken = 0

    def steps(windows: Windows) -> list[float]:
        nonlocal taken
        losses = []
        for begin in range(0, len(windows), TRAINING.batch_size):
            optimizer.learning_rate = learning_rate(TRAINING, taken)
            loss, gradients = slope(mx.array(windows[begin : begin + TRAINING.batch_size]))
            gradients, _ = optimizers.clip_grad_norm(gradients, LIMIT)  # type: ignore[no-untyped-call]
            optimizer.update(model, gradients)
            mx.eval(model.parameters(), optimizer.state, loss)
            losses.append(loss.item())
            taken += 1
        return losses

    return steps


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", choices=get_args(EngineKind), default="pytorch")
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--also", default="", help="ours once more with these options: " + ", ".join(OPTIONS))
    parser.add_argument("--own-blas", action="store_true", help="the matrix product that the framework brings")
    chosen = parser.parse_args()
    os.environ.pop("OPENBLAS_CORETYPE", None)  # engines do not see it either, and it takes half of the speed where it says Haswell
    if not chosen.own_blas and (advice := prepare_process(chosen.engine)) is not None:
        print(advice)
    size = SIZES[chosen.size]
    spec, flat = size.model, initial_parameters(size.model, 1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_checkpoint(folder / "model.safetensors", model_tensors(spec), flat)
        (folder / "config.json").write_text(config_json(spec))
        by_hand = torch_by_hand(folder) if chosen.engine == "pytorch" else mlx_by_hand(folder, spec)
        ways = {"by hand": by_hand, f"{chosen.engine}, float32": ours(chosen.engine, spec, flat)}
        for option in filter(None, chosen.also.split(",")):
            ways[f"{chosen.engine}, {option}"] = ours(chosen.engine, spec, flat, **OPTIONS[option])
    count, length = size.steps * TRAINING.batch_size, TRAINING.sequence_length
    windows: Windows = np.random.default_rng(1).integers(0, spec.vocab_size, (count, length + 1))
    print(f"{load_engine(chosen.engine).version}, {parameter_count(spec):,} parameters, {TRAINING.batch_size} × {length} tokens a step")
    begun = {name: steps(windows) for name, steps in ways.items()}
    for name, losses in begun.items():
        apart = max(abs(one - other) for one, other in zip(losses, begun["by hand"], strict=True))
        print(f"{name}: last loss {losses[-1]:.4f}, at most {apart:.1e} from those by hand")
    side_by_side(
        {name: partial(steps, windows) for name, steps in ways.items()},
        rounds=chosen.rounds,
        units=size.steps,
        unit="steps",
        clock=time.process_time,
    )


if __name__ == "__main__":
    main()
