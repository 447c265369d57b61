"""The engine `mlx` beside `pytorch`: the same checkpoint, the same logits, losses, steps and verdicts within float32's tolerance."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from nostrain.errors import ConfigError, LocalProtocolError
from nostrain.learning.beside import EngineBeside
from nostrain.learning.dispatch import run_job
from nostrain.learning.engines import load_engine
from nostrain.learning.engines.base import EngineOptions, Model, Moments
from nostrain.learning.initial import initial_parameters
from nostrain.learning.reference import ReferenceSpec, RoundSpec, repeat_run
from nostrain.protocol.dataset import DatasetManifest
from nostrain.protocol.engines import EngineKind
from nostrain.protocol.jobs import EvaluateResult, TrainResult
from nostrain.protocol.manifest import ModelSpec, RopeScaling, TrainingSpec
from nostrain.units import PPM, Ppm, Pubkey

from .conftest import MODEL, TRAINING, SmallRun
from .jobs import NAMES, Trained, candidates, evaluate_job

mx = pytest.importorskip("mlx.core", reason="mlx is not installed (extra `mlx`): THE MLX ENGINE IS NOT TESTED")

MLX = EngineOptions("mlx")
TIED = msgspec.structs.replace(MODEL, tie_word_embeddings=True)
QWEN2 = msgspec.structs.replace(MODEL, architecture="qwen2", rope_theta=1_000_000, rms_norm_eps_ppb=10_000)
QWEN3 = msgspec.structs.replace(MODEL, architecture="qwen3", head_dim=16, tie_word_embeddings=True)
LLAMA3 = msgspec.structs.replace(
    MODEL, rope_theta=500, attention_bias=True, rope_scaling=RopeScaling(8 * PPM, 1 * PPM, 4 * PPM, 16), rms_norm_eps_ppb=100_000
)
"""Of 4 pairs of coordinates in a head one is kept, one stretched, one in between."""
SPECS = [MODEL, TIED, QWEN2, QWEN3, LLAMA3]
NAMES_OF_SPECS = ["llama", "tied", "qwen2", "qwen3", "llama3"]
KINDS: tuple[EngineKind, ...] = ("pytorch", "mlx")


def opened(kind: EngineKind, spec: ModelSpec = MODEL) -> Model:
    flat = initial_parameters(spec, 3)
    # Larger than a fresh model's, so that attention and gates are far from the middle of their curves.
    flat[flat != 1] *= 10
    return load_engine(kind).open_model(spec, flat, EngineOptions(kind))


def windows_of(count: int) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    return np.random.default_rng(5).integers(0, MODEL.vocab_size, (count, 33))


@pytest.mark.parametrize("spec", SPECS, ids=NAMES_OF_SPECS)
def test_logits_are_those_of_transformers(spec: ModelSpec) -> None:
    import torch

    from nostrain.learning.engines.mlx.model import MlxModel
    from nostrain.learning.engines.pytorch.model import TorchModel

    theirs, ours, tokens = opened("pytorch", spec), opened("mlx", spec), windows_of(4)[:, :-1]
    assert isinstance(theirs, TorchModel)
    assert isinstance(ours, MlxModel)
    with torch.inference_mode():
        expected = theirs.module(input_ids=torch.from_numpy(tokens)).logits.numpy()
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(np.array(ours.network.logits(ours.tensors(), mx.array(tokens))), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("spec", SPECS, ids=NAMES_OF_SPECS)
def test_losses_and_steps_are_those_of_pytorch(spec: ModelSpec) -> None:
    """One clipped step of AdamW, then four more from the state that the other engine left: losses, parameters, moments."""
    models = {kind: opened(kind, spec) for kind in KINDS}
    states = {kind: Moments.fresh(len(models[kind].read())) for kind in KINDS}
    training, windows = msgspec.structs.replace(TRAINING, clip_ppm=100_000), windows_of(10)
    np.testing.assert_allclose(models["mlx"].window_losses(windows, 3), models["pytorch"].window_losses(windows, 3), atol=1e-5, rtol=0)

    first = {kind: models[kind].inner_steps(windows[:2], training, 2, states[kind]) for kind in KINDS}
    np.testing.assert_allclose(first["mlx"], first["pytorch"], atol=1e-5)
    # AdamW divides by the size of the gradient: where that is nothing but last bits, so is the direction of the first step.
    sure = np.abs(states["pytorch"].first) > 1e-6
    assert sure.mean() > 0.5
    np.testing.assert_allclose(models["mlx"].read()[sure], models["pytorch"].read()[sure], atol=1e-4)
    for name in ("first", "second"):
        one, other = (getattr(states[kind], name) for kind in KINDS)
        assert one.dtype == other.dtype == np.float32
        np.testing.assert_allclose(one, other, atol=1e-5 * np.abs(one).max(), rtol=0)

    swapped: dict[EngineKind, EngineKind] = {"mlx": "pytorch", "pytorch": "mlx"}
    losses = {kind: models[kind].inner_steps(windows[2:], training, 3, states[swapped[kind]]) for kind in KINDS}
    np.testing.assert_allclose(losses["mlx"], losses["pytorch"], atol=1e-3)
    assert states["mlx"].steps == states["pytorch"].steps == 5


def test_adamw_is_that_of_torch(rng: random.Random, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same gradients, of every magnitude, clipped or not: the same parameters, a few last bits apart, and none between sizes of blocks."""
    import torch

    from nostrain.learning.engines.mlx import adamw

    draw = np.random.default_rng(rng.getrandbits(64))
    begin = draw.standard_normal(600).astype(np.float32)
    blocks, flats = (1 << 18, 130, 7), [adamw.Shared(begin) for _ in range(3)]
    ours = [adamw.Trajectory(flat, Moments.fresh(600)) for flat in flats]
    theirs = torch.nn.Parameter(torch.from_numpy(begin.copy()))
    spec = TrainingSpec(weight_decay_ppm=Ppm(100_000))
    optimizer = torch.optim.AdamW([theirs], lr=3e-3, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1, foreach=False)
    for scale in (1e-9, 1e-3, 1.0, 1e4, 1e-6):
        gradient = (draw.standard_normal(600) * scale).astype(np.float32)
        theirs.grad = torch.from_numpy(gradient.copy())
        torch.nn.utils.clip_grad_norm_([theirs], 1.0)
        optimizer.step()
        halves = [mx.array(gradient[:200]).reshape(10, 20), mx.array(gradient[200:])]
        for block, trajectory in zip(blocks, ours, strict=True):
            monkeypatch.setattr(adamw, "_BLOCK", block)
            trajectory.step(halves, spec, 3e-3)
        np.testing.assert_allclose(flats[0].view, theirs.detach().numpy(), rtol=2e-6, atol=2e-7)
        assert len({flat.view.tobytes() for flat in flats}) == 1


def test_training_repeats_bit_for_bit_and_is_useful_to_the_other_engine(small_run: SmallRun, tmp_path: Path) -> None:
    """Deltas of both engines, scored by both: gains differ by far less than a level."""
    kinds: tuple[EngineKind, ...] = ("pytorch", "mlx", "mlx")
    results = [run_job(small_run.train_job(tmp_path, slot), EngineOptions(kind)) for slot, kind in enumerate(kinds)]
    again = run_job(msgspec.structs.replace(small_run.train_job(tmp_path, 1), delta_out=str(tmp_path / "again")), MLX)
    assert isinstance(again, TrainResult)
    assert isinstance(results[1], TrainResult)
    assert again.delta == results[1].delta
    offered = candidates(small_run, Trained(tmp_path, ()))
    one, other = (run_job(evaluate_job(small_run, offered), EngineOptions(kind)) for kind in ("pytorch", "mlx"))
    assert isinstance(one, EvaluateResult)
    assert isinstance(other, EvaluateResult)
    np.testing.assert_allclose(other.losses_before, one.losses_before, atol=2_000)
    for mine, theirs in zip(one.scores, other.scores, strict=True):
        assert mine.gain > 0
        assert abs(mine.gain - theirs.gain) < 2_000
        assert abs(mine.provenance - theirs.provenance) < 5_000
        assert mine.overlap_round_ppm == theirs.overlap_round_ppm
        assert mine.weight == theirs.weight


def test_the_reference_trains_each_worker_with_its_engine(small_run: SmallRun, tmp_path: Path) -> None:
    """Two rounds of a worker of each kind are what the two engine processes make of the same jobs."""
    built, workers = small_run.result, NAMES[:2]
    dataset = msgspec.json.decode(Path(small_run.paths[built.dataset.sha256]).read_bytes(), type=DatasetManifest)
    manifest = small_run.manifest(rounds=2)
    turns = tuple(RoundSpec(number, workers, workers, 2) for number in (1, 2))
    mixed: dict[Pubkey, EngineKind] = {workers[0]: "pytorch", workers[1]: "mlx"}
    alike: dict[Pubkey, EngineKind] = {workers[0]: "pytorch", workers[1]: "pytorch"}
    histories = {}
    for name, engines in (("mixed", mixed), ("again", mixed), ("alike", alike)):
        spec = ReferenceSpec(manifest, dataset, small_run.paths, turns, str(tmp_path / name), engines)
        histories[name] = repeat_run(spec)
    assert histories["mixed"] == histories["again"]
    # Deltas are coarse: those of the two engines can be equal. The moments of AdamW, float32, are not.
    states = {name: [(tmp_path / name / "round-00001" / f"{slot}.state").read_bytes() for slot in (0, 1)] for name in histories}
    assert states["mixed"][0] == states["alike"][0]
    assert states["mixed"][1] == states["again"][1] != states["alike"][1]
    with EngineBeside("mlx") as engine:
        done = engine.run(small_run.train_job(tmp_path, 1))
        assert isinstance(done, TrainResult)
        assert (tmp_path / "1.state").read_bytes() == states["mixed"][1]
        with pytest.raises(LocalProtocolError, match="No such file"):
            engine.run(msgspec.structs.replace(small_run.train_job(tmp_path, 1), checkpoint=str(tmp_path / "missing")))


def test_what_is_no_number_is_refused(small_run: SmallRun, tmp_path: Path) -> None:
    wild = msgspec.structs.replace(small_run.train_job(tmp_path), training=msgspec.structs.replace(TRAINING, learning_rate_ppb=10**30))
    with pytest.raises(LocalProtocolError, match="training diverged"):
        run_job(wild, MLX)
    with pytest.raises(LocalProtocolError, match="not those of the model"):
        load_engine("mlx").open_model(MODEL, initial_parameters(TIED, 1), MLX)


def test_devices_that_are_not_there_are_named() -> None:
    from nostrain.learning.engines.mlx.engine import pick_device

    with pytest.raises(ConfigError, match=r"engine\.device = 'cuda': mlx finds only"):
        pick_device("cuda")
    assert pick_device("cpu") == mx.Device(mx.cpu)
    assert pick_device("auto") in (mx.Device(mx.cpu), mx.Device(mx.gpu))


def test_the_engine_needs_no_torch() -> None:
    """A Mac without torch can take part; and the process is up in a fraction of a second."""
    code = "import sys; from nostrain.learning.engines import load_engine; load_engine('mlx'); assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
