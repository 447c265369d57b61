"""When an engine process has numba do the codec of a small model: once numpy has taken twice as long for it as numba takes to load.

So a process that ends soon, as in a devnet of three rounds, never loads it, and one that goes on has lost a second by beginning without. The
loading, and on a machine's first time the compiling, go on in a thread beside the jobs; a job is done as a whole by the one or the other.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from threading import Thread
from typing import Final

from nostrain.sparseloco.compiled import SMALL, adopt, available

WORTH_S: Final = 1.0
"""Processor seconds of numpy."""


def warm() -> None:
    """Load all that is compiled. Raises ImportError, or what else numba raises where it cannot work."""
    from nostrain.sparseloco.warm import warm

    warm()


class Adoption:
    """Of one process: `look` is called between two jobs."""

    def __init__(self, load: Callable[[], None] = warm) -> None:
        self._load = load
        self._loading: Thread | None = None
        self._error: Exception | None = None
        self._over = False

    def look(self) -> None:
        """Begin to load, or, when it is loaded, adopt it. Returns at once."""
        if self._over:
            return
        if self._loading is None:
            if SMALL.numpy_s >= WORTH_S:
                self._begin()
        elif not self._loading.is_alive():
            self._over = True
            if self._error is None:
                adopt()
            else:
                print(f"engine: numba cannot be used, numpy goes on: {type(self._error).__name__}: {self._error}", file=sys.stderr)

    def _begin(self) -> None:
        if not available():
            self._over = True
            return
        self._loading = Thread(target=self._run, name="numba")  # not a daemon: LLVM does not bear that a process ends around it
        self._loading.start()

    def _run(self) -> None:
        try:
            self._load()
        except Exception as error:
            self._error = error  # said by the next `look`: what fails because the process ends is nobody's concern
