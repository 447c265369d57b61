"""Documents to a dataset: tokenize in one pass, cut the shuffled tokens into shards in a second. Memory does not grow with the input.

The same inputs, tokenizer and seed give the same files, byte for byte.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from nostrain.learning.corpus.buckets import Buckets, Cutter
from nostrain.learning.corpus.documents import documents
from nostrain.learning.corpus.errors import Complaints, CorpusError
from nostrain.learning.corpus.tokens import Bytes, Subwords, Tokenizer
from nostrain.protocol.dataset import (
    MANIFEST_FILE,
    MAX_SHARDS,
    TOKEN_BYTES,
    TOKENIZER_FILE,
    VALIDATION_FILE,
    BuildDataset,
    DatasetManifest,
    Shard,
    dtype_of,
    shard_file,
)
from nostrain.protocol.manifest import BlobRef
from nostrain.sparseloco.checkpoint import write_bytes, write_parts

BATCH_BYTES: Final = 1 << 20
BATCH_DOCUMENTS: Final = 1024
"""What is tokenized at once: enough for the tokenizer's threads."""
MOST_SHARD_TOKENS: Final = 1 << 32


class Built(msgspec.Struct, frozen=True):
    """What was built: the manifest blob, and what went into it. `left_out` rows were bad; `cut_off` tokens are the rest of a division."""

    dataset: BlobRef
    documents: int
    left_out: int
    text_bytes: int
    tokens: int
    cut_off: int
    dtype: str
    vocab_size: int
    shards: int
    shard_tokens: int
    validation_tokens: int


def build_dataset(spec: BuildDataset, tell: Callable[[str], None]) -> Built:
    """Make the dataset that `spec` describes; `tell` hears of every bad row.

    Raises CorpusError for what the person has to change, OSError when a file cannot be read or written. The folder is then of no use; one
    without `dataset.json`, which is written last, is never taken for a dataset.
    """
    tokenizer: Tokenizer = Bytes() if spec.tokenizer is None else Subwords(Path(spec.tokenizer), spec.separator)
    if spec.shard_tokens < 1 or spec.validation_tokens < 1 or spec.shard_tokens > MOST_SHARD_TOKENS:
        raise CorpusError(f"shards of {spec.shard_tokens} and validation of {spec.validation_tokens} tokens: both have to be positive")
    out = Path(spec.out)
    _make_empty(out)
    complaints = Complaints(tell, strict=spec.strict)
    spool = out / ".spool"
    try:
        buckets = Buckets(spool, spec.seed, TOKEN_BYTES[dtype_of(tokenizer.vocab_size)])
        try:
            for batch in _batches(documents(spec.inputs, spec.field, complaints)):
                for document, tokens in zip(batch, tokenizer.encode(batch), strict=True):
                    buckets.add(document, tokens)
        finally:
            buckets.close()
        return _write(spec, tokenizer, buckets, complaints.count, out)
    finally:
        shutil.rmtree(spool, ignore_errors=True)


def _make_empty(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()):
        raise CorpusError(f"{out}: the folder is not empty; name a new one with --out")


def _batches(source: Iterator[bytes]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    size = 0
    for document in source:
        batch.append(document)
        size += len(document)
        if size >= BATCH_BYTES or len(batch) == BATCH_DOCUMENTS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _write(spec: BuildDataset, tokenizer: Tokenizer, buckets: Buckets, left_out: int, out: Path) -> Built:
    """Cut the tokens: shards of equal length, and what is held out."""
    trained, held = buckets.hold_out(spec.validation_tokens)
    count = trained // spec.shard_tokens
    check_count(spec, count, trained, held, f"{buckets.documents} documents ({left_out} bad rows)")
    length, dtype = trained // count, dtype_of(tokenizer.vocab_size)
    edges = [length * index for index in range(count + 1)]

    def shard(name: str, cutter: Cutter, tokens: int, text_bytes: int) -> Shard:
        path = out / name
        ref = write_parts(path, cutter.take(tokens * TOKEN_BYTES[dtype]))
        path.chmod(0o444)  # sealed: a store may link it instead of copying
        return Shard(ref.sha256, ref.size, tokens=tokens, text_bytes=max(1, text_bytes))

    before, cutter = buckets.text_before(edges, held=False), Cutter(buckets.stream(held=False))
    shards = tuple(shard(shard_file(at), cutter, length, before[at + 1] - before[at]) for at in range(count))
    cutter = Cutter(buckets.stream(held=True))
    text = buckets.text_before([spec.validation_tokens], held=True)[0]
    validation = shard(VALIDATION_FILE, cutter, spec.validation_tokens, text)
    copied = None if tokenizer.path is None else write_bytes(out / TOKENIZER_FILE, tokenizer.path.read_bytes())
    manifest = DatasetManifest(shards, validation, dtype, tokenizer.vocab_size, tokenizer.separator, copied)
    return Built(
        dataset=write_bytes(out / MANIFEST_FILE, msgspec.json.encode(manifest)),
        documents=buckets.documents,
        left_out=left_out,
        text_bytes=buckets.text_bytes,
        tokens=trained + held,
        cut_off=trained - edges[-1] + held - spec.validation_tokens,
        dtype=dtype,
        vocab_size=tokenizer.vocab_size,
        shards=count,
        shard_tokens=length,
        validation_tokens=spec.validation_tokens,
    )


def check_count(spec: BuildDataset, count: int, trained: int, held: int, found: str) -> None:
    """Raises CorpusError when there is too little text, or too much for shards of this size."""
    if held < spec.validation_tokens or count < 2:
        needed = f"validation needs {spec.validation_tokens}, two shards {2 * spec.shard_tokens}"
        fix = "Give more text, or lower --shard-tokens or --validation-tokens"
        raise CorpusError(f"{trained} tokens to train on and {held} held out (with all copies) in {found}; {needed}. {fix}")
    if count > MAX_SHARDS:
        raise CorpusError(
            f"{count} shards, a dataset has at most {MAX_SHARDS}: raise --shard-tokens to {-(-trained // MAX_SHARDS)} or more"
        )
