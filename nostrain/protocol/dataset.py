"""What a run trains on: the content of the dataset manifest blob (version 2), and what `nostrain-ctl data build` is asked for."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from nostrain.protocol.limits import MAX_BLOB_BYTES
from nostrain.protocol.manifest import BlobRef

Dtype = Literal["uint8", "uint16", "uint32"]

VERSION: Final = 2
TOKEN_BYTES: Final[dict[Dtype, int]] = {"uint8": 1, "uint16": 2, "uint32": 4}
MAX_SHARDS: Final = 4096
MAX_VOCABULARY: Final = 1 << 24
SEPARATOR: Final = 0
"""The byte between two documents of bytes; it occurs in no text."""

MANIFEST_FILE: Final = "dataset.json"
TOKENIZER_FILE: Final = "tokenizer.json"
VALIDATION_FILE: Final = "validation.bin"


class Shard(BlobRef, frozen=True, kw_only=True):
    """A blob of `tokens` tokens, little-endian, without header. They stand for `text_bytes` bytes of UTF-8, a separator counted as one."""

    tokens: int
    text_bytes: int


class DatasetManifest(msgspec.Struct, frozen=True):
    """The dataset manifest blob (JSON). Every token is below `vocab_size`; `separator` ends a document; nobody trains on `validation`.

    `tokenizer` is a `tokenizer.json` of Hugging Face's `tokenizers`; None: a token is a byte.
    """

    shards: tuple[Shard, ...]
    validation: Shard
    dtype: Dtype = "uint8"
    vocab_size: int = 256
    separator: int = SEPARATOR
    tokenizer: BlobRef | None = None
    v: int = VERSION


class BuildDataset(msgspec.Struct, frozen=True):
    """Make a dataset of `inputs` (files and folders) in the empty folder `out`.

    `tokenizer` is a `tokenizer.json`, None for bytes; `separator` names its token that ends a document, None: the one that it calls so. `field`
    is what holds the text in JSONL and Parquet. A shard has `shard_tokens` tokens or a few more. With `strict`, a bad row ends it.
    """

    inputs: tuple[str, ...]
    out: str
    tokenizer: str | None = None
    separator: str | None = None
    field: str = "text"
    shard_tokens: int = 1 << 20
    validation_tokens: int = 1 << 18
    seed: int = 0
    strict: bool = False


def dtype_of(vocab_size: int) -> Dtype:
    """The smallest type that holds every token."""
    return "uint8" if vocab_size <= 1 << 8 else "uint16" if vocab_size <= 1 << 16 else "uint32"


def shard_file(index: int) -> str:
    """The name of a shard in the folder of a built dataset."""
    return f"shard-{index:04d}.bin"


def files_of(dataset: DatasetManifest) -> list[tuple[str, BlobRef]]:
    """Name and blob of every file in the folder of a built dataset, but for the manifest's own."""
    files: list[tuple[str, BlobRef]] = [(shard_file(index), shard) for index, shard in enumerate(dataset.shards)]
    files.append((VALIDATION_FILE, dataset.validation))
    return files if dataset.tokenizer is None else [*files, (TOKENIZER_FILE, dataset.tokenizer)]


def dataset_problem(dataset: DatasetManifest) -> str | None:
    """The first thing that cannot be, in one line; None when there is nothing."""
    if dataset.v != VERSION:
        return f"version {dataset.v}, this program reads {VERSION}"
    if not 1 <= len(dataset.shards) <= MAX_SHARDS:
        return f"{len(dataset.shards)} shards"
    if not 1 <= dataset.vocab_size <= MAX_VOCABULARY or dtype_of(dataset.vocab_size) != dataset.dtype:
        return f"a vocabulary of {dataset.vocab_size} tokens in {dataset.dtype}"
    if not 0 <= dataset.separator < dataset.vocab_size:
        return f"separator {dataset.separator} of {dataset.vocab_size} tokens"
    for shard in (*dataset.shards, dataset.validation):
        if not 1 <= shard.size <= MAX_BLOB_BYTES or shard.tokens * TOKEN_BYTES[dataset.dtype] != shard.size:
            return f"a shard of {shard.size} bytes for {shard.tokens} tokens in {dataset.dtype}"
        if not 1 <= shard.text_bytes <= MAX_BLOB_BYTES:
            return f"a shard of {shard.size} bytes, of no text or more than there is room for"
    return None
