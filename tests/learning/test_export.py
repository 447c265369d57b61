"""The model's way out: the folder opens in transformers and mlx-lm with our logits, begins a new run bit for bit, and is whole or not there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from nostrain.errors import LocalProtocolError, NostrainError, RemoteProtocolError
from nostrain.hashes import sha256_hex
from nostrain.learning.build import build_run
from nostrain.learning.engines.base import Flat
from nostrain.learning.engines.pytorch.model import TorchModel
from nostrain.learning.export.folder import export_model
from nostrain.learning.export.weights import split
from nostrain.learning.initial import initial_parameters
from nostrain.learning.pretrained import INDEX, SINGLE, load_pretrained
from nostrain.protocol.export import Exported, ExportModel, FloatType, ModelState, RunModel, Vocabulary
from nostrain.protocol.jobs import BuildRunJob
from nostrain.protocol.manifest import BlobRef, ModelSpec, RopeScaling, TensorSpec
from nostrain.protocol.tensors import model_tensors, parameter_count
from nostrain.sparseloco.aggregate import canonical_zero
from nostrain.sparseloco.checkpoint import merkle_root, write_checkpoint
from nostrain.units import PPM, Digest, EventId, Pubkey

from .conftest import MODEL, write_text

FAMILIES = {
    "llama": MODEL,
    "llama3 tied": msgspec.structs.replace(
        MODEL, head_dim=12, rope_theta=500_000, rope_scaling=RopeScaling(8 * PPM, PPM, 4 * PPM, 16), tie_word_embeddings=True
    ),
    "llama biased": msgspec.structs.replace(MODEL, attention_bias=True, rms_norm_eps_ppb=10_000),
    "qwen2 tied": msgspec.structs.replace(MODEL, architecture="qwen2", rope_theta=1_000_000, tie_word_embeddings=True),
    "qwen3": msgspec.structs.replace(MODEL, architecture="qwen3", head_dim=16),
}
BYTES = Vocabulary(0)


def drawn(spec: ModelSpec) -> Flat:
    """Biases and norms too, otherwise nobody would notice that one is not used."""
    noise = np.random.default_rng(3).normal(0, 0.2, parameter_count(spec)).astype(np.float32)
    return canonical_zero(initial_parameters(spec, 3) + noise)


def source(folder: Path, spec: ModelSpec, flat: Flat, vocabulary: Vocabulary | None = BYTES) -> RunModel:
    checkpoint, tensors = folder / "checkpoint", model_tensors(spec)
    write_checkpoint(checkpoint, tensors, flat)
    states = tuple(
        ModelState(at, Digest(f"{at:02x}" * 32), root) for at, root in enumerate((Digest("ee" * 32), merkle_root(tensors, flat)))
    )
    return RunModel(
        EventId("ab" * 32), "a `run`\n# |", Pubkey("cd" * 32), 8, spec, Digest("ef" * 32), states, str(checkpoint), vocabulary=vocabulary
    )


def exported(folder: Path, spec: ModelSpec = MODEL, *, vocabulary: Vocabulary | None = BYTES, **options: Any) -> Exported:
    return export_model(ExportModel(source(folder, spec, drawn(spec), vocabulary), str(folder / "out"), **options))


@pytest.mark.parametrize("shard_bytes", [10**9, 9_000])
@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_opens_it_with_our_logits_and_a_new_run_begins_with_our_values(family: str, shard_bytes: int, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    spec = FAMILIES[family]
    made = exported(tmp_path, spec, shard_bytes=shard_bytes)
    weights = [name for name in made.files if name.endswith(".safetensors")]
    assert (weights == [SINGLE]) == (INDEX not in made.files) == (shard_bytes > 9_000)
    assert len(weights) == 1 or len(weights) > 5
    theirs, loading = AutoModelForCausalLM.from_pretrained(tmp_path / "out", local_files_only=True, output_loading_info=True)
    assert not any(loading.values()), loading
    assert theirs.dtype == torch.float32
    tokens = torch.arange(64).view(2, 32)
    with torch.inference_mode():
        ours = TorchModel(spec, drawn(spec), torch.device("cpu")).module(input_ids=tokens).logits
        assert (theirs(input_ids=tokens).logits - ours).abs().max() <= 1e-5
    assert theirs.generation_config.eos_token_id == theirs.config.eos_token_id == 0
    read, flat = load_pretrained(tmp_path / "out")
    assert read == msgspec.structs.replace(spec, head_dim=spec.head_size)
    assert flat.tobytes() == drawn(spec).tobytes()
    assert (made.state.round, made.parameters, made.tokenizer) == (1, parameter_count(spec), False)


@pytest.mark.parametrize(("dtype", "theirs"), [("bfloat16", torch.bfloat16), ("float16", torch.float16)])
def test_narrow_types_are_rounded_as_torch_rounds(dtype: FloatType, theirs: torch.dtype, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    flat = drawn(MODEL)
    flat[:6] = np.array([1.00390625, 1.01171875, -3e-6, 1e-40, 65503.9, -1.0039063], np.float32)
    made = export_model(ExportModel(source(tmp_path, MODEL, canonical_zero(flat)), str(tmp_path / "out"), dtype=dtype))
    _, read = load_pretrained(tmp_path / "out")
    expected = torch.from_numpy(canonical_zero(flat)).to(theirs).float().numpy()
    assert read.tobytes() == canonical_zero(expected).tobytes()
    assert made.files[SINGLE] < 2 * len(flat) + 4096
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out", local_files_only=True, dtype="auto").dtype == theirs


@pytest.mark.parametrize(("dtype", "value"), [("bfloat16", 3.4e38), ("float16", 65520.0)])
def test_a_value_that_would_become_infinite_is_refused(dtype: FloatType, value: float, tmp_path: Path) -> None:
    flat = drawn(MODEL)
    flat[-1] = value
    with pytest.raises(LocalProtocolError, match=f"model.norm.weight has a value that is too large for {dtype}"):
        export_model(ExportModel(source(tmp_path, MODEL, flat), str(tmp_path / "out"), dtype=dtype))
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_a_new_run_begins_with_it(tmp_path: Path) -> None:
    """The flat vector of `coordinator.run.init` is that of the run that it came from: the same Merkle root."""
    made = exported(tmp_path)
    (tmp_path / "text").mkdir()
    write_text(tmp_path / "text")
    run = build_run(BuildRunJob(str(tmp_path / "text"), ModelSpec(), 7, 4096, 4096, str(tmp_path / "run"), init=made.folder))
    assert run.root == made.state.root


def test_mlx_lm_loads_it_with_our_logits(tmp_path: Path) -> None:
    mx = pytest.importorskip("mlx.core", reason="mlx is not installed (extra `mlx`)")
    utils = pytest.importorskip("mlx_lm.utils", reason="mlx-lm is not installed: NOT TRIED WITH IT")
    for family in ("llama3 tied", "qwen2 tied", "qwen3"):
        spec, folder = FAMILIES[family], tmp_path / family
        folder.mkdir()
        exported(folder, spec, shard_bytes=20_000)
        loaded, _ = utils.load_model(folder / "out")
        tokens = torch.arange(64).view(2, 32)
        with torch.inference_mode():
            ours = TorchModel(spec, drawn(spec), torch.device("cpu")).module(input_ids=tokens).logits.numpy()
        np.testing.assert_allclose(np.array(loaded(mx.array(tokens.numpy()))), ours, atol=1e-4, rtol=0)


def word_tokenizer(path: Path) -> Vocabulary:
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

    made = Tokenizer(models.WordLevel({word: at for at, word in enumerate(["<unk>", "a", "b"])}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    made.add_special_tokens([AddedToken("</s>", special=True)])
    made.save(str(path))
    content = path.read_bytes()
    return Vocabulary(3, BlobRef(Digest(sha256_hex(content)), len(content)), str(path))


def test_the_tokenizer_goes_with_it(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    vocabulary = word_tokenizer(tmp_path / "tokenizer.json")
    made = exported(tmp_path, vocabulary=vocabulary)
    assert made.tokenizer
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out", local_files_only=True)
    assert tokenizer("b a b").input_ids == [2, 1, 2]
    assert (tokenizer.eos_token, tokenizer.eos_token_id) == ("</s>", 3)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["eos_token_id"] == 3
    other = msgspec.structs.replace(vocabulary, path=str(tmp_path / "checkpoint"))
    job = ExportModel(source(tmp_path, MODEL, drawn(MODEL), other), str(tmp_path / "other"))
    with pytest.raises(LocalProtocolError, match="not the tokenizer that the run's dataset was built with"):
        export_model(job)
    assert not (tmp_path / "other").exists()


def test_the_card_says_what_is_known(tmp_path: Path) -> None:
    made = exported(tmp_path)
    card = (tmp_path / "out" / "README.md").read_text()
    for known in (made.run, "cd" * 32, "ef" * 32, made.state.root, made.state.state_id, "1 of 8", "A token is a byte"):
        assert known in card
    assert "named | `a ?run??# ?` |" in card
    assert "licence is not part of a run" in card
    codes = [part.partition("```")[0] for part in card.split("```python\n")[1:]]
    scope: dict[str, Any] = {}
    exec(codes[0], scope)
    assert scope["text"] == "text"
    (tmp_path / "more").mkdir()
    exported(tmp_path / "more", vocabulary=None)
    assert "was not at hand" in (tmp_path / "more" / "out" / "README.md").read_text()
    assert not (tmp_path / "more" / "out" / "generation_config.json").exists()


def test_another_checkpoint_is_not_exported(tmp_path: Path) -> None:
    whole = source(tmp_path, MODEL, drawn(MODEL))
    content = bytearray(Path(whole.checkpoint).read_bytes())
    content[-3] ^= 1
    cases: list[tuple[bytes, str]] = [
        (bytes(content), "has the Merkle root .* none of the run's 2 states has it"),
        (bytes(content[:-4]), "bytes of data, but this run's tensors have"),
        (b"", "its header promises"),
    ]
    for data, reason in cases:
        Path(whole.checkpoint).write_bytes(data)
        with pytest.raises(RemoteProtocolError, match=reason):
            export_model(ExportModel(whole, str(tmp_path / "out")))
    absurd = msgspec.structs.replace(whole, model=msgspec.structs.replace(MODEL, num_hidden_layers=10**9))
    with pytest.raises(RemoteProtocolError, match="a model of 1000000000 layers"):
        export_model(ExportModel(absurd, str(tmp_path / "out")))
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    job = ExportModel(source(tmp_path, MODEL, drawn(MODEL)), str(tmp_path / "out"))
    (tmp_path / "out").symlink_to("nowhere")
    with pytest.raises(LocalProtocolError, match="is there already"):
        export_model(job)
    with pytest.raises(NostrainError, match="no such folder"):
        export_model(msgspec.structs.replace(job, out=str(tmp_path / "not" / "there")))


def test_files_are_split_at_tensors() -> None:
    tensors = [TensorSpec(name, (size,)) for name, size in (("a", 3), ("b", 2), ("c", 9), ("d", 1), ("e", 1))]
    names = [[tensor.name for tensor in shard] for shard in split(tensors, 4, 20)]
    assert names == [["a", "b"], ["c"], ["d", "e"]]


def test_the_process_takes_a_few_mb_and_says_in_a_line_what_is_wrong(tmp_path: Path) -> None:
    """40 MB of checkpoint in bfloat16, beyond what the process needs to begin with."""
    spec = ModelSpec(hidden_size=512, intermediate_size=2048, num_hidden_layers=2, vocab_size=256)
    small, large = tmp_path / "small", tmp_path / "large"
    peaks = []
    for folder, model in ((small, MODEL), (large, spec)):
        folder.mkdir()
        job = ExportModel(source(folder, model, drawn(model)), str(folder / "out"), dtype="bfloat16")
        command = [sys.executable, "-m", "nostrain.learning.export", msgspec.json.encode(job).decode()]
        script = "import resource,subprocess,sys; print(subprocess.run(sys.argv[1:]).returncode, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
        done = subprocess.run([sys.executable, "-c", script, *command], capture_output=True, text=True, check=True)
        lines = done.stdout.splitlines()
        assert msgspec.json.decode(lines[0], type=Exported).folder == str(folder / "out")
        code, peak = map(int, lines[1].split())
        assert code == 0
        peaks.append(peak * 1024)
    assert 4 * parameter_count(spec) > 33 << 20
    assert peaks[1] - peaks[0] < 24 << 20
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 1
    assert again.stderr == f"{large / 'out'}: is there already; nothing is overwritten\n"
