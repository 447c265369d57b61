"""Curations (kind 8668): a curator signs the digest of a dataset manifest, and with it of every shard and of the tokenizer.

A run manifest carries them as they are, so that whoever is to join it needs no other source. `curations.jsonl` in a dataset's folder has one a line.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from nostrain.errors import RemoteProtocolError
from nostrain.protocol.event import Draft, Event
from nostrain.units import Digest, UnixTime
from nostrain.wire import kinds
from nostrain.wire.check import check_values
from nostrain.wire.event import parse_event_untrusted

CURATIONS_FILE: Final = "curations.jsonl"
MAX_CURATIONS: Final = 4
"""In a run manifest."""


class Curation(msgspec.Struct, frozen=True):
    """Content of kind 8668: the dataset, by the digest of its manifest, and what the curator calls it."""

    dataset: Digest
    name: str = ""
    type: Literal["curation"] = "curation"
    v: int = 1


def curation_draft(dataset: Digest, name: str, created_at: UnixTime) -> Draft:
    """The event that signs `dataset`."""
    content = msgspec.json.encode(Curation(dataset, name)).decode()
    return Draft(created_at, kinds.CURATION, (("t", "nostrain"), ("x", dataset)), content)


def check_curation_untrusted(event: Event, dataset: Digest) -> Event:
    """The event, verified, if it is a curation of `dataset`. Raises RemoteProtocolError."""
    verified = parse_event_untrusted(msgspec.to_builtins(event))
    whose = verified.pubkey[:8]
    if verified.kind != kinds.CURATION:
        raise RemoteProtocolError("curation", f"is of kind {verified.kind}", whose=whose)
    try:
        said = msgspec.json.decode(verified.content, type=Curation)
    except (msgspec.DecodeError, RecursionError) as error:
        raise RemoteProtocolError("curation", str(error), whose=whose) from None
    check_values(said)
    if said.v != 1 or said.dataset != dataset or verified.tag("x") != dataset:
        raise RemoteProtocolError("curation", f"is not of the dataset {dataset[:8]}", whose=whose)
    return verified


def read_curations_untrusted(data: bytes, dataset: Digest) -> tuple[Event, ...]:
    """The curations in a file of them, a line each. Raises RemoteProtocolError naming the first line that is none of `dataset`."""
    found = []
    for number, line in enumerate(data.splitlines(), 1):
        if line.strip():
            try:
                found.append(check_curation_untrusted(parse_event_untrusted(line), dataset))
            except RemoteProtocolError as error:
                raise RemoteProtocolError(f"{CURATIONS_FILE}, line {number}", str(error)) from None
    return tuple(found)
