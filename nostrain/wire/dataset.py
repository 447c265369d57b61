"""The dataset manifest as bytes: a stranger's file, until it is read."""

from __future__ import annotations

from typing import Final

import msgspec

from nostrain.errors import RemoteProtocolError
from nostrain.protocol.dataset import VERSION, DatasetManifest, dataset_problem
from nostrain.wire.check import check_values

MAX_DATASET_BYTES: Final = 4 << 20
"""The largest dataset manifest that is fetched and parsed: 4096 shards with room to spare."""


class _Version(msgspec.Struct):
    v: int = VERSION


def read_dataset_untrusted(data: bytes) -> DatasetManifest:
    """Raises RemoteProtocolError when it is no dataset manifest, or one of another version."""
    try:
        version = msgspec.json.decode(data, type=_Version).v
        if version != VERSION:
            raise RemoteProtocolError("dataset manifest", f"version {version}, this program reads {VERSION}")
        dataset = msgspec.json.decode(data, type=DatasetManifest)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise RemoteProtocolError("dataset manifest", str(error)) from None
    check_values(dataset)
    problem = dataset_problem(dataset)
    if problem is not None:
        raise RemoteProtocolError("dataset manifest", problem)
    return dataset
