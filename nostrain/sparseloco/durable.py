"""Files that replace others and are on the disk afterwards, whatever happens: several at once wait for it once."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from nostrain.disk import fsync_folder

File = tuple[str | os.PathLike[str], Iterable[bytes | memoryview]]
"""A path, and what is to be in the file."""


def replace_file(path: str | os.PathLike[str], parts: Iterable[bytes | memoryview]) -> None:
    """As `replace_files`, of one."""
    replace_files((path, parts))


def replace_files(*files: File) -> None:
    """Write each file's parts to a temporary name and fsync them; then rename all in order, and fsync the folders.

    While one is on its way to the disk the next is written: file systems have one journal for all of them.

    Raises:
        OSError: the disk is full or a path is unusable. If one file cannot be written, none is replaced.
    """
    ready: list[tuple[Path, Path]] = []
    with ExitStack() as stack:
        with ThreadPoolExecutor(1) as pool:  # without a thread for a file alone; left before the files are closed
            syncs: list[Future[None]] = []
            for path, parts in files:
                target = Path(path)
                temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
                stack.callback(temporary.unlink, missing_ok=True)
                file = stack.enter_context(temporary.open("wb"))
                file.writelines(parts)
                file.flush()
                ready.append((temporary, target))
                if len(ready) < len(files):
                    syncs.append(pool.submit(os.fsync, file.fileno()))
                else:
                    os.fsync(file.fileno())
        for sync in syncs:
            sync.result()
        for temporary, target in ready:
            temporary.replace(target)
    for folder in dict.fromkeys(target.parent for _, target in ready):
        fsync_folder(folder)
