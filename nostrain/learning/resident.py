"""The model that an engine process keeps between jobs: a round's jobs are all at one checkpoint, and the next one is the outer step away.

Opening a model means building its modules (transformers fills them with random values first) and reading a file of four bytes a parameter. Whoever
borrows the model leaves its parameters as they were, bit for bit, or says that it does not; what does not come to its end makes it be forgotten.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Self

from nostrain.learning.engines import load_engine
from nostrain.learning.engines.base import EngineOptions, Flat, Model
from nostrain.protocol.manifest import ModelSpec
from nostrain.protocol.tensors import model_tensors
from nostrain.sparseloco.checkpoint import map_checkpoint_untrusted


@dataclass(frozen=True, slots=True)
class FileState:
    """Which file a path led to. Checkpoints are written under another name and renamed, so that a file with other bytes is another file."""

    device: int
    inode: int
    size: int
    changed_ns: int

    @classmethod
    def of(cls, path: str) -> Self:
        """Raises OSError: there is no such file."""
        found = os.stat(path)
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


NOWHERE: Final = FileState(0, 0, 0, 0)
"""No file is this one."""


@dataclass(slots=True)
class _Kept:
    spec: ModelSpec
    model: Model
    file: FileState
    """The checkpoint whose values the parameters are."""

    def is_at(self, spec: ModelSpec, checkpoint: str) -> bool:
        return self.spec == spec and self.file == FileState.of(checkpoint)


class ResidentModel:
    """At most one model, opened by the engine that `options` name."""

    def __init__(self, options: EngineOptions) -> None:
        self._options = options
        self._kept: _Kept | None = None

    @contextmanager
    def at(self, spec: ModelSpec, checkpoint: str, *, spoils: bool = False) -> Iterator[Model]:
        """The model with the values of the file `checkpoint`, for the length of the `with`.

        Who `spoils` it may leave what it likes: the next job reads its checkpoint into it.

        Raises:
            RemoteProtocolError: the file is not a canonical checkpoint of the model.
            LocalProtocolError, ConfigError: as `engines.base.Engine.open_model`.
            OSError: the file cannot be read.
        """
        kept, self._kept = self._kept, None
        file = FileState.of(checkpoint)  # before it is read: if it is replaced meanwhile, the next job sees another file
        if kept is None or kept.spec != spec:
            kept = None  # freed before the next one is built: two may not fit
            kept = _Kept(spec, self._open(spec, checkpoint), file)
        elif kept.file != file:
            kept.model.write(_values(spec, checkpoint))
            kept.file = file
        if spoils:
            kept.file = NOWHERE
        yield kept.model
        self._kept = kept

    @contextmanager
    def scratch(self, spec: ModelSpec, values: Flat) -> Iterator[Model]:
        """The model with `values`, to do with as one likes: whatever it holds then, the next job reads its checkpoint into it.

        Raises:
            LocalProtocolError, ConfigError: as `engines.base.Engine.open_model`.
        """
        kept, self._kept = self._kept, None
        if kept is None or kept.spec != spec:
            kept = None
            kept = _Kept(spec, load_engine(self._options.kind).open_model(spec, values, self._options), NOWHERE)
        else:
            kept.model.write(values)
            kept.file = NOWHERE
        yield kept.model
        self._kept = kept

    def _open(self, spec: ModelSpec, checkpoint: str) -> Model:
        """The file's pages are gone when the model is open: whoever borrows it needs the room."""
        engine = load_engine(self._options.kind)
        return engine.open_model(spec, _values(spec, checkpoint), self._options)

    def advance(self, spec: ModelSpec, before: str, after: str) -> None:
        """The outer step from the file `before` was written to the file `after`: a model that is at the one goes to the other."""
        if self._kept is not None and self._kept.is_at(spec, before):
            kept, self._kept = self._kept, None
            file = FileState.of(after)
            kept.model.write(_values(spec, after))
            kept.file = file
            self._kept = kept


def _values(spec: ModelSpec, checkpoint: str) -> Flat:
    """What is in the file, checked and memory-mapped: reading it takes no memory of our own."""
    return map_checkpoint_untrusted(checkpoint, model_tensors(spec), finite=True)
