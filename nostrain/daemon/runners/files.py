"""Fetching and storing blobs."""

from __future__ import annotations

from pathlib import Path

import msgspec

from nostrain.core.effects import DatasetRead, Fetch, FetchDataset, Fetched, Outcome, Upload, Uploaded
from nostrain.daemon.ports import Ports
from nostrain.errors import RemoteProtocolError
from nostrain.protocol.manifest import DatasetManifest
from nostrain.wire.check import check_values


async def run(effect: Fetch | FetchDataset | Upload, ports: Ports) -> Outcome:
    """Raises Unavailable; RemoteProtocolError when the bytes are not that blob, of that size."""
    if isinstance(effect, Upload):
        return Uploaded(await ports.blobs.put(Path(effect.path), effect.blob.sha256, effect.servers))
    blob = effect.blob
    path = await ports.blobs.get(blob.sha256, blob.urls, blob.size)
    size = await ports.offload(lambda: path.stat().st_size)
    if size != blob.size:
        whose = effect.whose if isinstance(effect, Fetch) else ""
        raise RemoteProtocolError(f"blob {blob.sha256[:8]}", f"has {size} bytes, {blob.size} were promised", whose=whose)
    if isinstance(effect, Fetch):
        return Fetched(str(path))
    return DatasetRead(read_dataset_untrusted(await ports.offload(path.read_bytes)))


def read_dataset_untrusted(data: bytes) -> DatasetManifest:
    """Raises RemoteProtocolError when it is no dataset manifest."""
    try:
        dataset = msgspec.json.decode(data, type=DatasetManifest)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise RemoteProtocolError("dataset manifest", str(error)) from None
    check_values(dataset)
    if not dataset.shards:
        raise RemoteProtocolError("dataset manifest", "has no shards")
    return dataset
