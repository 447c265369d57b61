"""A pretrained checkpoint as Hugging Face folders have it (`config.json`, safetensors in one file or several): as a model and its flat vector.

Format: huggingface/safetensors, README, "Format": u64 length, JSON header, then the data. It is read here because a reader for numpy knows no
bfloat16. Nothing but the flat vector is held in memory.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from nostrain.errors import LocalProtocolError
from nostrain.hashes import sha256_hex
from nostrain.learning.engines.base import Flat
from nostrain.protocol.dataset import TOKENIZER_FILE, DatasetManifest
from nostrain.protocol.hf_config import model_spec
from nostrain.protocol.manifest import ModelSpec
from nostrain.protocol.tensors import model_tensors
from nostrain.sparseloco.aggregate import canonical_zero
from nostrain.sparseloco.layout import tensor_sizes

INDEX: Final = "model.safetensors.index.json"
SINGLE: Final = "model.safetensors"
MAX_HEADER: Final = 100 << 20
_TYPES: Final = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_EMBEDDINGS: Final = "model.embed_tokens.weight"
_HEAD: Final = "lm_head.weight"
"""What a file may have besides, or instead of the embeddings: the output layer of a model whose layer is tied to them."""


def load_pretrained(folder: Path) -> tuple[ModelSpec, Flat]:
    """The model in `folder` and its parameters, float32 in the order of `model_tensors`, zeros canonical.

    Raises:
        LocalProtocolError: what is missing, unsupported or not finite, by name.
        OSError: a file cannot be read.
    """
    spec = model_spec(_json(folder / "config.json"))
    tensors = model_tensors(spec)
    places, opened = _places(folder), dict[str, _File]()
    unknown = sorted(set(places) - {tensor.name for tensor in tensors} - {_HEAD})
    unknown = [name for name in unknown if not name.endswith(".rotary_emb.inv_freq")]
    if unknown:
        raise LocalProtocolError(
            f"{folder}: {unknown[0]} and {len(unknown) - 1} more tensors are not of a {spec.architecture} as config.json has it"
        )
    found: list[NDArray[Any]] = []
    for tensor in tensors:
        tied = tensor.name == _EMBEDDINGS and spec.tie_word_embeddings
        stored = _HEAD if tied and _EMBEDDINGS not in places and _HEAD in places else tensor.name
        if stored not in places:
            raise LocalProtocolError(f"{folder}: no tensor {tensor.name}, which config.json asks for")
        name = places[stored]
        if name not in opened:
            opened[name] = _File(folder / name)
        found.append(opened[name].values(stored, tensor.shape))
    # Only now is there memory for it: config.json alone may promise anything.
    flat, at = np.empty(sum(tensor_sizes(tensors)), np.float32), 0
    for tensor, values in zip(tensors, found, strict=True):
        _widen(values, flat[at : at + len(values)])
        if not np.isfinite(flat[at : at + len(values)]).all():
            raise LocalProtocolError(f"{folder}: {tensor.name} has values that are not finite")
        at += len(values)
    return spec, canonical_zero(flat)


def check_tokens(folder: Path, spec: ModelSpec, dataset: DatasetManifest) -> None:
    """Raises LocalProtocolError when the dataset's tokens are not those that the model in `folder` was trained on, as far as can be seen."""
    if dataset.vocab_size > spec.vocab_size:
        raise LocalProtocolError(f"{folder}: it knows {spec.vocab_size} tokens, the dataset has {dataset.vocab_size}")
    path = folder / TOKENIZER_FILE
    if path.is_file():
        if dataset.tokenizer is None:
            raise LocalProtocolError(f"{path}: the dataset is of bytes; build one with --tokenizer {path}")
        if sha256_hex(path.read_bytes()) != dataset.tokenizer.sha256:
            raise LocalProtocolError(f"{path}: the dataset was built with another tokenizer")


class _Entry(msgspec.Struct, frozen=True):
    """A tensor in the header of a safetensors file; offsets count from the header's end."""

    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[Annotated[int, msgspec.Meta(ge=0)], Annotated[int, msgspec.Meta(ge=0)]]


class _File:
    """One safetensors file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= MAX_HEADER:
                raise LocalProtocolError(f"{path}: not a safetensors file")
            self._begin = 8 + length
            try:
                listed = msgspec.json.decode(file.read(length), type=dict[str, msgspec.Raw])
                listed.pop("__metadata__", None)
                self._entries = {name: msgspec.json.decode(entry, type=_Entry) for name, entry in listed.items()}
            except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
                raise LocalProtocolError(f"{path}: not a safetensors file: {error}") from error
        self._data = np.memmap(path, np.uint8, mode="r")

    def names(self) -> list[str]:
        """Of its tensors."""
        return list(self._entries)

    def values(self, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
        """The tensor's values, flat, where they lie in the file; bfloat16 as u16. Raises LocalProtocolError."""
        if (entry := self._entries.get(name)) is None:
            raise LocalProtocolError(f"{self._path}: {name} is not described in its header")
        if entry.dtype not in _TYPES:
            raise LocalProtocolError(f"{self._path}: {name} is of type {entry.dtype}; {', '.join(_TYPES)} are supported")
        if entry.shape != shape:
            raise LocalProtocolError(f"{self._path}: {name} is of shape {entry.shape}, config.json asks for {shape}")
        begin, end = entry.data_offsets
        data = self._data[self._begin + begin : self._begin + end]
        if len(data) != prod(shape) * np.dtype(_TYPES[entry.dtype]).itemsize:
            raise LocalProtocolError(f"{self._path}: {name} has {len(data)} bytes; is the file cut short?")
        return data.view(_TYPES[entry.dtype])


def _widen(values: NDArray[Any], out: NDArray[np.float32]) -> None:
    """Put values of a file into `out` as float32."""
    if values.dtype == np.dtype(_TYPES["BF16"]):
        out.view(np.uint32)[:] = values.astype(np.uint32) << 16
    else:
        out[:] = values


def _places(folder: Path) -> dict[str, str]:
    """Which file each tensor is in. Where there are both, the one file counts, as for transformers."""
    if (folder / SINGLE).is_file():
        return dict.fromkeys(_File(folder / SINGLE).names(), SINGLE)
    if not (folder / INDEX).is_file():
        raise LocalProtocolError(f"{folder}: neither {SINGLE} nor {INDEX}; other formats are not read")
    found = _json(folder / INDEX).get("weight_map")
    if not isinstance(found, dict) or not all(isinstance(name, str) and Path(name).name == name for name in found.values()):
        raise LocalProtocolError(f"{folder / INDEX}: it has no weight_map of files in this folder")
    if missing := next((name for name in found.values() if not (folder / name).is_file()), None):
        raise LocalProtocolError(f"{folder}: {missing} is not there, which {INDEX} names")
    return found


def _json(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise LocalProtocolError(f"{path}: there is no such file; a checkpoint is a folder as Hugging Face has them") from None
    except (ValueError, RecursionError) as error:
        raise LocalProtocolError(f"{path}: not JSON: {error}") from error
    if not isinstance(found, dict):
        raise LocalProtocolError(f"{path}: not a JSON object")
    return found
