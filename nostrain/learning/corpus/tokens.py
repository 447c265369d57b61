"""From documents to tokens: bytes, or subwords by a `tokenizer.json` (Hugging Face `tokenizers`). Every document ends with the separator."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from nostrain.learning.corpus.errors import CorpusError
from nostrain.protocol.dataset import MAX_VOCABULARY, SEPARATOR, Dtype, dtype_of

ENDS: Final = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|im_end|>", "[SEP]")
"""How tokenizers call the end of a document, looked for where nothing names it."""

Tokens = NDArray[np.unsignedinteger[Any]]


class Tokenizer(Protocol):
    """Turns documents into arrays of `dtype`, little-endian, each ended by `separator`."""

    @property
    def vocab_size(self) -> int:
        """Every token is below it."""
        ...

    @property
    def separator(self) -> int:
        """What ends a document."""
        ...

    @property
    def path(self) -> Path | None:
        """The tokenizer's file, if it has one."""
        ...

    def encode(self, documents: Sequence[bytes]) -> list[Tokens]:
        """The tokens of each document."""
        ...


def numpy_type(dtype: Dtype) -> np.dtype[np.unsignedinteger[Any]]:
    """The array type of tokens in a file."""
    return np.dtype(dtype).newbyteorder("<")


class Bytes:
    """A token is a byte."""

    vocab_size = 256
    separator = SEPARATOR
    path: Path | None = None

    def encode(self, documents: Sequence[bytes]) -> list[Tokens]:
        """As `Tokenizer.encode`."""
        end = bytes([SEPARATOR])
        return [np.frombuffer(document + end, np.uint8) for document in documents]


class Subwords:
    """A tokenizer in a file. Text that looks like one of its special tokens is text: no document can forge a separator."""

    def __init__(self, path: Path, separator: str | None = None) -> None:
        """Raises CorpusError when the file is no tokenizer, or no token of it is called `separator`."""
        try:
            from tokenizers import Tokenizer as File
        except ImportError:
            raise CorpusError(f"{path}: reading it needs tokenizers; nostraind's extra data brings it") from None
        try:
            self._file = File.from_str(path.read_text("utf-8"))
        except OSError as error:
            raise CorpusError(f"{path}: {error.strerror}") from error
        except Exception as error:  # `tokenizers` raises nothing more special
            raise CorpusError(f"{path}: not a tokenizer.json: {error}") from error
        self._file.no_truncation()
        self._file.no_padding()
        self._file.encode_special_tokens = True
        self.path = path
        self.vocab_size = max(self._file.get_vocab(with_added_tokens=True).values(), default=0) + 1
        if self.vocab_size > MAX_VOCABULARY:
            raise CorpusError(f"{path}: {self.vocab_size} tokens, at most {MAX_VOCABULARY} are supported")
        self.separator = self._separator(path, separator)
        self._type = numpy_type(dtype_of(self.vocab_size))

    def _separator(self, path: Path, wanted: str | None) -> int:
        names = [wanted] if wanted is not None else [name for name in (_configured(path), *ENDS) if name is not None]
        found = next((token for token in map(self._file.token_to_id, names) if token is not None), None)
        if found is None:
            raise CorpusError(f"{path}: no token is called {' or '.join(names)}; name the one that ends a document with --separator")
        return int(found)

    def encode(self, documents: Sequence[bytes]) -> list[Tokens]:
        """As `Tokenizer.encode`."""
        encoded = self._file.encode_batch_fast([document.decode() for document in documents], add_special_tokens=False)
        return [np.array([*one.ids, self.separator], self._type) for one in encoded]


def _configured(path: Path) -> str | None:
    """The end that `tokenizer_config.json` beside the tokenizer names, as Hugging Face folders have it."""
    try:
        end = json.loads(path.with_name("tokenizer_config.json").read_text("utf-8")).get("eos_token")
    except (OSError, ValueError, AttributeError):
        return None
    return end.get("content") if isinstance(end, dict) else end if isinstance(end, str) else None
