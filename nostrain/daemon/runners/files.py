"""Fetching and storing blobs."""

from __future__ import annotations

import logging
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from nostrain.core.effects import DatasetRead, Discard, Evict, Failed, Fetch, FetchDataset, Fetched, Ok, Outcome, Upload, Uploaded
from nostrain.daemon.ports import Ports
from nostrain.errors import LocalProtocolError, RemoteProtocolError, Unavailable
from nostrain.wire.dataset import MAX_DATASET_BYTES, read_dataset_untrusted

log = logging.getLogger("nostrain.files")

_OF_ROUND: Final = re.compile(r"(?:state-|lead-)?(\d{5,6})[-.]")
"""How the machines name what belongs to a round: checkpoints of the replica and of the coordinator, a worker's delta and private state."""


async def run(effect: Fetch | FetchDataset | Upload | Discard | Evict, ports: Ports) -> Outcome:
    """Raises Unavailable, also when our own disk is full or unreadable; RemoteProtocolError when a source serves something else.

    What the digest already decides is final and `Failed`: no other source could serve other bytes.
    """
    with own_disk():
        if isinstance(effect, Upload):
            return await upload(effect, ports)
        if isinstance(effect, Discard):
            return await discard(effect, ports)
        if isinstance(effect, Evict):
            await ports.blobs.discard(effect.blob)
            return Ok()
        if isinstance(effect, FetchDataset) and effect.blob.size > MAX_DATASET_BYTES:
            return Failed(f"a dataset manifest of {effect.blob.size} bytes, at most {MAX_DATASET_BYTES} are read")
        return await fetch(effect, ports)


async def upload(effect: Upload, ports: Ports) -> Outcome:
    """A file that is not what was committed any more ends what hangs on it, not the daemon: after a restart it would be no better."""
    try:
        return Uploaded(await ports.blobs.put(Path(effect.path), effect.blob.sha256, effect.servers, effect.ticket))
    except LocalProtocolError as error:
        return Failed(str(error))


async def discard(effect: Discard, ports: Ports) -> Outcome:
    """Blobs first: what is gone already is no error, so that it can be done again after a crash."""
    for digest in effect.blobs:
        await ports.blobs.discard(digest, effect.owners)
    removed = await ports.offload(lambda: clear(Path(effect.folder), effect.last, frozenset(effect.keep)))
    log.info("rounds to %d are over: %d blobs and %d files in work/ are not needed any more", effect.last, len(effect.blobs), removed)
    return Ok()


def clear(folder: Path, last: int, keep: frozenset[str]) -> int:
    """Remove the files of rounds up to `last` from the work folder, but for those named in `keep`; how many there were."""
    old = []
    for path in folder.iterdir():
        match = _OF_ROUND.match(path.name)
        if match is not None and int(match[1]) <= last and path.name not in keep:
            old.append(path)
    for path in old:
        path.unlink(missing_ok=True)
    return len(old)


async def fetch(effect: Fetch | FetchDataset, ports: Ports) -> Outcome:
    """The blob's path, or what the dataset manifest in it says."""
    blob = effect.blob
    path = await ports.blobs.get(blob.sha256, blob.urls, blob.size, effect.author)
    size = await ports.offload(lambda: path.stat().st_size)
    if size != blob.size:
        return Failed(f"blob {blob.sha256[:8]} has {size} bytes, {blob.size} were promised")
    if isinstance(effect, Fetch):
        return Fetched(str(path))
    try:
        return DatasetRead(read_dataset_untrusted(await ports.offload(path.read_bytes)))
    except RemoteProtocolError as error:
        return Failed(str(error))


@contextmanager
def own_disk() -> Iterator[None]:
    """Trouble with our own files is Unavailable: it is waited for, as for a server."""
    try:
        yield
    except OSError as error:
        raise Unavailable(f"our own disk: {error}") from error
    except sqlite3.OperationalError as error:
        raise Unavailable(f"our own index of blobs: {error}") from error
