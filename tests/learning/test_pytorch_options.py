"""What the owner of a machine may choose for pytorch: none of it changes what is trained, but for rounding. A GPU is tried where there is one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from nostrain.errors import ConfigError
from nostrain.learning.__main__ import _options
from nostrain.learning.engines.base import ADAM_EPSILON, EngineOptions, Flat, Moments, learning_rate
from nostrain.learning.engines.pytorch.engine import PyTorchEngine, pick_device, pick_dtype
from nostrain.learning.engines.pytorch.memory import memory_errors
from nostrain.learning.engines.pytorch.model import TorchModel
from nostrain.learning.initial import initial_parameters
from nostrain.protocol.manifest import ModelSpec, TrainingSpec
from nostrain.protocol.tensors import model_tensors
from nostrain.units import PPM

from .conftest import MODEL

TRAINING = TrainingSpec(inner_steps=3, batch_size=6, sequence_length=32, warmup_steps=1, learning_rate_ppb=1_000_000)
START = initial_parameters(MODEL, 5)
WINDOWS = np.random.default_rng(5).integers(0, 256, (18, 33))

cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="NO CUDA DEVICE: pytorch on a GPU was not tried")


def opened(**options: Any) -> TorchModel:
    return PyTorchEngine().open_model(MODEL, START, EngineOptions(**options))


def trained(micro_batch: int = 0, **options: Any) -> tuple[Flat, list[float], Moments]:
    """Parameters, losses and moments after three steps of six windows."""
    model, moments = opened(**options), Moments.fresh(len(START))
    losses = model.inner_steps(WINDOWS, TRAINING, 0, moments, micro_batch)
    return model.read().copy(), losses, moments


def moved(parameters: Flat) -> NDArray[np.float32]:
    return parameters - START


@pytest.mark.parametrize("clip_ppm", [1_000, 1_000_000_000])
def test_steps_are_those_of_a_loop_by_hand(clip_ppm: int) -> None:
    """transformers' model, torch's clipping and plain AdamW over its tensors, with gradients that are clipped and that are not."""
    training = msgspec.structs.replace(TRAINING, clip_ppm=clip_ppm)
    ours, state = opened(), Moments.fresh(len(START))
    losses = ours.inner_steps(WINDOWS, training, 0, state)

    theirs = opened()
    parameters = [torch.nn.Parameter(parameter.detach().clone()) for parameter in theirs.module.parameters()]
    named = dict(zip((name for name, _ in theirs.module.named_parameters()), parameters, strict=True))
    optimizer = torch.optim.AdamW(
        parameters,
        betas=(training.beta1_ppm / PPM, training.beta2_ppm / PPM),
        eps=ADAM_EPSILON,
        weight_decay=training.weight_decay_ppm / PPM,
    )
    expected = []
    for step, batch in enumerate(torch.from_numpy(WINDOWS).split(training.batch_size)):
        logits = torch.func.functional_call(theirs.module, named, (), {"input_ids": batch[:, :-1]}).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, clip_ppm / PPM)
        optimizer.param_groups[0]["lr"] = learning_rate(training, step)
        optimizer.step()
        expected.append(loss.item())
    flat = torch.cat([named[tensor.name].detach().flatten() for tensor in model_tensors(MODEL)]).numpy()
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    # AdamW divides by the size of the gradient: where that is nothing but last bits, so is the direction of a step.
    assert np.quantile(np.abs(ours.read() - flat), 0.999) < 1e-5
    assert np.abs(moved(flat)).max() > 1e-3


def test_nobody_waits_for_the_device_between_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU is given step after step; to ask for a loss or a norm in between would leave it idle."""
    asked: list[str] = []

    def counted(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            asked.append(name)
            return original(*arguments, **named)

        return call

    model = opened()
    for name in ("item", "tolist", "__float__", "__bool__", "__int__"):
        monkeypatch.setattr(torch.Tensor, name, counted(name, getattr(torch.Tensor, name)))
    asked_for = [len(asked) for steps in (1, 3) if model.inner_steps(WINDOWS[: 6 * steps], TRAINING, 0, Moments.fresh(len(START)), 4)]
    assert asked.count("tolist") == 2, "once in each training"
    assert asked_for[1] == 2 * asked_for[0], f"more steps, no more questions: {asked}"


def test_bfloat16_trains_and_measures_nothing() -> None:
    exact, losses, _ = trained()
    rough, their_losses, moments = trained(precision="bfloat16")
    assert rough.dtype == moments.first.dtype == np.float32
    assert (rough != exact).any()
    np.testing.assert_allclose(their_losses, losses, rtol=1e-2)
    cosine = float(moved(rough) @ moved(exact) / np.linalg.norm(moved(rough)) / np.linalg.norm(moved(exact)))
    assert cosine > 0.95
    one, other = opened(precision="bfloat16"), opened()
    assert one.window_losses(WINDOWS, 4).tobytes() == other.window_losses(WINDOWS, 4).tobytes()


@pytest.mark.parametrize("present", [True, False])
def test_auto_is_bfloat16_for_wide_models_on_a_processor_that_multiplies_them(monkeypatch: pytest.MonkeyPatch, present: bool) -> None:
    """The devnet's model is not wide: whatever the processor, `auto` trains it in float32."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": present})
    cpu, wide = torch.device("cpu"), msgspec.structs.replace(MODEL, hidden_size=512)
    assert pick_dtype("auto", cpu, wide) is (torch.bfloat16 if present else torch.float32)
    assert pick_dtype("bfloat16", cpu, MODEL) is torch.bfloat16
    assert pick_dtype("float32", cpu, wide) is torch.float32
    for narrow in (MODEL, ModelSpec()):
        assert pick_dtype("auto", cpu, narrow) is torch.float32
    assert trained(precision="auto")[0].tobytes() == trained(precision="float32")[0].tobytes()


@pytest.mark.parametrize("native", [True, False])
def test_auto_is_bfloat16_on_a_card_that_does_not_only_emulate_it(monkeypatch: pytest.MonkeyPatch, native: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: native or including_emulation)
    assert pick_dtype("auto", torch.device("cuda"), MODEL) is (torch.bfloat16 if native else torch.float32)
    assert pick_dtype("bfloat16", torch.device("cuda"), MODEL) is torch.bfloat16


def test_too_little_memory_is_a_memory_error() -> None:
    with pytest.raises(MemoryError, match="allocate"), memory_errors():
        torch.empty(1 << 50, dtype=torch.uint8)
    with pytest.raises(MemoryError, match="CUDA out of memory"), memory_errors():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    with pytest.raises(MemoryError, match="cublasCreate"), memory_errors():
        raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
    with pytest.raises(MemoryError, match="MPS backend"), memory_errors():
        raise RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB, other allocations: 1.00 GB, max allowed: 9.07 GB).")
    with pytest.raises(RuntimeError, match="shape"), memory_errors():
        torch.zeros(3).view(2, 2)


def test_the_command_line_says_it_all() -> None:
    assert _options([]) == EngineOptions()
    line = "--engine pytorch --device cuda --precision bfloat16 --micro-batch 2 --memory-mb 9 --checkpointing --compile"
    assert _options(line.split()) == EngineOptions("pytorch", "cuda", "bfloat16", 2, True, True, 9)


def test_a_device_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match=r"engine\.device = 'gpu': pytorch finds only"):
        pick_device("gpu")
    assert pick_device("auto").type in ("cpu", "cuda", "mps")


@cuda
@pytest.mark.parametrize("options", [{"precision": "float32"}, {"checkpointing": True}, {"micro_batch": 2}])
def test_cuda_trains_as_the_cpu_does(options: dict[str, Any]) -> None:
    here, there = trained(), trained(device="cuda", **options)
    assert np.quantile(np.abs(moved(there[0]) - moved(here[0])), 0.95) < 1e-3
    np.testing.assert_allclose(there[1], here[1], rtol=1e-2)
    assert trained(device="cuda", **options)[0].tobytes() == there[0].tobytes(), "it repeats bit by bit"


@cuda
def test_cuda_measures_as_the_cpu_does_and_puts_every_bit_back() -> None:
    model = opened(device="cuda")
    np.testing.assert_allclose(model.window_losses(WINDOWS, 4), opened().window_losses(WINDOWS, 4), atol=1e-4)
    at = np.arange(0, len(START), 3)
    model.replace(at, model.replace(at, np.full(len(at), 0.5, np.float32)))
    assert model.read().tobytes() == START.tobytes()


@cuda
def test_cuda_out_of_memory_is_a_memory_error() -> None:
    with pytest.raises(MemoryError), memory_errors():
        torch.empty(1 << 50, dtype=torch.uint8, device="cuda")
