"""`data build`: every kind of input, the same files from the same input, memory that does not grow, and bad rows named by file and line."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

from nostrain.learning.corpus import documents as documents_module
from nostrain.learning.corpus.build import Built, build_dataset
from nostrain.learning.corpus.documents import MAX_LINE, PIECE, documents
from nostrain.learning.corpus.errors import SHOWN, Complaints, CorpusError
from nostrain.learning.corpus.tokens import Subwords
from nostrain.learning.data import read_shard
from nostrain.protocol.dataset import BuildDataset, DatasetManifest, dataset_problem, files_of

PEAK = """
import re, sys
from nostrain.learning.corpus.__main__ import main
code = main(sys.argv[1:])
print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1], file=sys.stderr)
sys.exit(code)
"""
"""What a build needs at most, in KiB. (`ru_maxrss` would begin with what this process had when it forked.)"""

WORDS = ["the", "run", "of", "many", "trains", "one", "model", "and", "pays", "für", "it", "in", "sats", "日本"]


def texts(count: int, seed: int = 1) -> list[str]:
    rng = random.Random(seed)
    return [f"{number} " + " ".join(rng.choices(WORDS, k=rng.randrange(5, 60))) for number in range(count)]


def write_rows(path: Path, rows: list[str]) -> Path:
    path.write_text("".join(json.dumps({"id": at, "text": row}) + "\n" for at, row in enumerate(rows)))
    return path


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level BPE of 600 tokens, as Hugging Face folders have them."""
    made = Tokenizer(BPE())
    made.pre_tokenizer = ByteLevel(add_prefix_space=False)
    alphabet = ByteLevel.alphabet()
    made.train_from_iterator(
        texts(300), BpeTrainer(vocab_size=600, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False)
    )
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    made.save(str(path))
    return path


def built(tmp_path: Path, *inputs: Path, name: str = "out", **fields: Any) -> tuple[Built, DatasetManifest, list[str]]:
    """Build with small shards; what was said on the way comes last."""
    said: list[str] = []
    spec = BuildDataset(tuple(map(str, inputs)), str(tmp_path / name), **{"shard_tokens": 2000, "validation_tokens": 1000, **fields})
    result = build_dataset(spec, said.append)
    manifest = msgspec.json.decode((tmp_path / name / "dataset.json").read_bytes(), type=DatasetManifest)
    assert dataset_problem(manifest) is None
    for file, blob in files_of(manifest):
        content = (tmp_path / name / file).read_bytes()
        assert (hashlib.sha256(content).hexdigest(), len(content)) == (blob.sha256, blob.size)
    assert {path.name for path in (tmp_path / name).iterdir()} == {file for file, _ in files_of(manifest)} | {"dataset.json"}
    return result, manifest, said


def all_tokens(folder: Path, manifest: DatasetManifest) -> list[int]:
    return [
        token
        for file, _ in files_of(manifest)
        if file.endswith(".bin")
        for token in read_shard(str(folder / file), manifest.dtype).tolist()
    ]


def test_rows_become_documents_of_bytes(tmp_path: Path) -> None:
    rows = texts(200)
    result, manifest, said = built(tmp_path, write_rows(tmp_path / "a.jsonl", rows))
    assert (result.documents, result.left_out, said) == (200, 0, [])
    assert result.tokens == result.text_bytes == sum(len(row.encode()) + 1 for row in rows)
    assert {shard.tokens for shard in manifest.shards} == {result.shard_tokens}
    assert result.shard_tokens * result.shards + 1000 + result.cut_off == result.tokens
    whole = set(bytes(all_tokens(tmp_path / "out", manifest)).split(b"\0"))
    assert len(whole & {row.encode() for row in rows}) > 150
    assert stat.S_IMODE((tmp_path / "out" / "shard-0000.bin").stat().st_mode) == 0o444


def test_every_kind_of_file_gives_the_same_dataset(tmp_path: Path) -> None:
    rows = texts(150)
    lines = write_rows(tmp_path / "a.jsonl", rows).read_bytes()
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines))
    with pyarrow.CompressedOutputStream(str(tmp_path / "c.jsonl.zst"), "zstd") as file:
        file.write(lines)
    pyarrow.parquet.write_table(pyarrow.table({"id": list(range(150)), "text": rows}), tmp_path / "d.parquet", row_group_size=40)
    folder = tmp_path / "e"
    folder.mkdir()
    for at, row in enumerate(rows):
        (folder / f"{at:03d}.txt").write_text(row)
    (folder / ".hidden").write_text("not read")
    inputs = [tmp_path / name for name in ("a.jsonl", "b.jsonl.gz", "c.jsonl.zst", "d.parquet", "e")]
    made = [built(tmp_path, path, name=f"out-{at}")[0].dataset.sha256 for at, path in enumerate(inputs)]
    assert len(set(made)) == 1
    assert built(tmp_path, inputs[0], name="other", seed=1)[0].dataset.sha256 not in made


def test_tokens_of_a_tokenizer(tmp_path: Path, tokenizer: Path) -> None:
    """Text that names the separator is text, and bits a byte can be told: the bytes of all shards are those of the text."""
    rows = [*texts(400), "<|endoftext|> is no end"]
    result, manifest, _ = built(tmp_path, write_rows(tmp_path / "a.jsonl", rows), tokenizer=str(tokenizer))
    assert (manifest.dtype, manifest.vocab_size, result.documents) == ("uint16", Tokenizer.from_file(str(tokenizer)).get_vocab_size(), 401)
    assert manifest.tokenizer is not None
    assert manifest.separator == Subwords(tokenizer).separator == 0
    tokens = all_tokens(tmp_path / "out", manifest)
    assert max(tokens) < manifest.vocab_size
    assert tokens.count(manifest.separator) <= 401
    decoded = Tokenizer.from_file(str(tokenizer))
    assert (
        decoded.decode(Subwords(tokenizer).encode([rows[-1].encode()])[0].tolist(), skip_special_tokens=False).count("<|endoftext|>") == 1
    )
    covered = sum(shard.text_bytes for shard in (*manifest.shards, manifest.validation))
    assert abs(covered / result.text_bytes - (result.tokens - result.cut_off) / result.tokens) < 0.02


def test_the_type_follows_from_the_vocabulary(tmp_path: Path) -> None:
    """A vocabulary with a gap up to 70,000 needs four bytes a token."""
    vocabulary = {"a": 0, "b": 1, "</s>": 70_000}
    path = tmp_path / "tokenizer.json"
    path.write_text(Tokenizer(BPE(vocabulary, [])).to_str())
    _, manifest, _ = built(tmp_path, write_rows(tmp_path / "a.jsonl", ["ab" * at for at in range(1, 150)]), tokenizer=str(path))
    assert (manifest.dtype, manifest.vocab_size, manifest.separator) == ("uint32", 70_001, 70_000)
    assert manifest.shards[0].size == 4 * manifest.shards[0].tokens


@pytest.mark.parametrize(
    ("content", "separator", "reason"),
    [("{}", None, "not a tokenizer.json"), ("[", None, "not a tokenizer.json"), (None, "<stop>", "no token is called <stop>")],
)
def test_a_tokenizer_that_cannot_be_used(tmp_path: Path, tokenizer: Path, content: str | None, separator: str | None, reason: str) -> None:
    path = tmp_path / "t.json"
    path.write_text(tokenizer.read_text() if content is None else content)
    with pytest.raises(CorpusError, match=reason):
        Subwords(path, separator)


def test_the_end_of_text_may_be_named_beside_the_tokenizer(tmp_path: Path, tokenizer: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(tokenizer.read_text())
    path.with_name("tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": "a"}}))
    assert Subwords(path).separator == Tokenizer.from_file(str(path)).token_to_id("a")


def test_bad_rows_are_named_counted_and_left_out(tmp_path: Path) -> None:
    good = texts(150)
    path = write_rows(tmp_path / "a.jsonl", good)
    bad = [b"{", b"[]", b'{"txt": "x"}', b'{"text": 3}', b'{"text": ""}', b'{"text": "\\ud800"}', b'{"text": "\xff"}', b'{"text": null}']
    path.write_bytes(path.read_bytes() + b"\n \n" + b"\n".join(bad) + b"\n" + b'{"text": "last, without a newline"}')
    result, _, said = built(tmp_path, path)
    assert (result.documents, result.left_out) == (151, len(bad))
    assert said[0].startswith(f"{path}:153: ")
    assert [f"{path}:{153 + at}" for at in range(len(bad))] == [line.split(": ")[0] for line in said]
    assert "`text`" in said[2]
    with pytest.raises(CorpusError, match=r"a\.jsonl:153"):
        built(tmp_path, path, name="strict", strict=True)


def test_complaints_do_not_fill_the_screen() -> None:
    said: list[str] = []
    complaints = Complaints(said.append)
    for number in range(100):
        complaints.bad(f"file:{number}", "bad\x1b[2J")
    assert (complaints.count, len(said)) == (100, SHOWN + 1)
    assert "\x1b" not in "".join(said)


def test_a_row_without_end_is_refused_and_the_next_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents_module, "MAX_LINE", 1000)
    monkeypatch.setattr(documents_module, "BLOCK", 100)
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": "x" * 2000}) + "\n" + json.dumps({"text": "y"}) + "\n" + json.dumps({"text": "z" * 5000}))
    said: list[str] = []
    assert list(documents((str(path),), "text", Complaints(said.append))) == [b"y"]
    assert [line.split(": ")[0] for line in said] == [f"{path}:1", f"{path}:3"]
    assert MAX_LINE == 16 << 20


@given(st.text(alphabet="aä日\n", max_size=300), st.integers(4, 60), st.integers(1, 80))
def test_a_long_file_is_cut_between_characters(text: str, piece: int, block: int) -> None:
    """Every byte once, no piece too long, each piece UTF-8; and at line ends where there are any."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(documents_module, "PIECE", piece)
        patch.setattr(documents_module, "BLOCK", block)
        pieces = list(documents_module._pieces(_Source(text.encode())))
    assert b"".join(pieces) == text.encode()
    assert all(0 < len(part) <= piece for part in pieces)
    assert all(part.decode() for part in pieces)
    assert all(b"\n" not in part or part.endswith(b"\n") for part in pieces[:-1])
    assert PIECE == 1 << 16


class _Source:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, size: int) -> bytes:
        part, self._data = self._data[:size], self._data[size:]
        return part


def test_text_that_is_not_utf8_is_left_out_by_pieces(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"good\n" * 20_000 + b"\xff\n" + b"good\n" * 20_000)
    said: list[str] = []
    found = b"".join(documents((str(path),), "text", Complaints(said.append)))
    assert said == [f"{path}: not UTF-8 at byte 100000; left out"]
    assert set(found.split()) == {b"good"}


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.jsonl.gz", gzip.compress(b'{"text": "x"}\n' * 9999)[:-20], "cut short"),
        ("a.jsonl.gz", b"not gzip", "cut short"),
        ("a.parquet", b"PAR1 no", "not readable as Parquet"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CorpusError, match=reason) as caught:
        built(tmp_path, tmp_path / name)
    assert name in str(caught.value)


def test_a_column_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"body": ["x"], "text": [1]}), tmp_path / "a.parquet")
    with pytest.raises(CorpusError, match=r"no column `text` of text; it has body \(string\), text \(int64\)"):
        built(tmp_path, tmp_path / "a.parquet")


def test_what_does_not_fit_says_what_would(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", texts(100))
    with pytest.raises(CorpusError, match=r"validation needs 1000, two shards 200000"):
        built(tmp_path, path, shard_tokens=100_000)
    with pytest.raises(CorpusError, match=r"at most 4096: raise --shard-tokens to \d"):
        built(tmp_path, path, name="tiny", shard_tokens=1)
    with pytest.raises(CorpusError, match="the folder is not empty"):
        built(tmp_path, path, name=".")
    with pytest.raises(CorpusError, match="no such file"):
        built(tmp_path, tmp_path / "nowhere", name="none")
    assert not (tmp_path / "out" / "dataset.json").exists()
    assert not (tmp_path / "out" / ".spool").exists()


def test_copies_of_a_held_out_document_are_held_out(tmp_path: Path) -> None:
    _, manifest, _ = built(tmp_path, write_rows(tmp_path / "a.jsonl", texts(120) * 3), validation_tokens=6000)
    held = set((tmp_path / "out" / "validation.bin").read_bytes().split(b"\0")[:-1])
    trained = b"".join((tmp_path / "out" / name).read_bytes() for name, _ in files_of(manifest) if name.startswith("shard"))
    assert len(held) > 3
    assert not held & set(trained.split(b"\0"))


def test_memory_does_not_grow_with_the_input(tmp_path: Path) -> None:
    """Ten times the text, the same memory but for noise."""
    peaks = []
    for name, count in (("small", 4_000), ("large", 40_000)):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(f'{{"text": "{number}{" word" * 200}"}}\n' for number in range(count)))
        spec = msgspec.json.encode(BuildDataset((str(path),), str(tmp_path / name), shard_tokens=500_000)).decode()
        done = subprocess.run([sys.executable, "-c", PEAK, spec], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stderr.split()[-1]))
    assert (tmp_path / "large.jsonl").stat().st_size > 40e6
    assert peaks[1] - peaks[0] < 8 << 10, peaks


def test_tokens_in_a_file_are_little_endian(tmp_path: Path) -> None:
    (tmp_path / "s.bin").write_bytes(bytes([1, 2, 3, 4]))
    assert read_shard(str(tmp_path / "s.bin"), "uint16").tolist() == [0x0201, 0x0403]
    assert read_shard(str(tmp_path / "s.bin"), "uint32").dtype == np.dtype("<u4")
