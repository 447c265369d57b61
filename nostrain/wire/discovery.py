"""Adverts ⇄ events: run pointers (38650), presence (28650), relay lists (NIP-65, NIP-17), server lists (BUD-03) and handler information (NIP-89)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Final

import msgspec

from nostrain.errors import RemoteProtocolError
from nostrain.protocol.discovery import Advert, Pointer, Presence
from nostrain.protocol.event import Draft, Event, Tags
from nostrain.protocol.limits import MAX_EVENT_BYTES, MAX_RELAYS
from nostrain.units import UnixTime
from nostrain.wire import kinds
from nostrain.wire.check import check_values
from nostrain.wire.event import refuse_repeated, short_reason
from nostrain.wire.relay_url import relay_urls_untrusted

MAX_TAGS_READ: Final = 64
"""Tags of a relay list that are looked at."""

MAX_SERVERS: Final = 4
"""Servers of a list that are asked."""

HANDLER_ID: Final = "nostrain"
ABOUT: Final = "Decentralized training of language models: measured work, paid over Lightning. Runs are joined with nostraind."
ALT: Final = {kinds.POINTER: "A nostrain training run", kinds.PRESENCE: "A participant of a nostrain training run"}
"""NIP-31: what programs show that do not know these kinds."""

_ADVERTS: Final[dict[int, type[Advert]]] = {kinds.POINTER: Pointer, kinds.PRESENCE: Presence}


def draft_advert(body: Advert, created_at: UnixTime) -> Draft:
    """The event that says `body`."""
    kind = kinds.POINTER if isinstance(body, Pointer) else kinds.PRESENCE
    return Draft(created_at, kind, _tags(kind, body), msgspec.json.encode(body).decode())


def _tags(kind: int, body: Advert) -> Tags:
    return (*_required(body), ("alt", ALT[kind]))


def _required(body: Advert) -> Tags:
    tags: Tags = (("t", "nostrain"), ("d", body.run))
    return (*tags, ("e", body.run)) if isinstance(body, Pointer) else tags


def read_advert_untrusted(event: Event) -> Advert:
    """What a verified event of a kind in `kinds.ADVERTS` says. Raises RemoteProtocolError naming its kind and author."""
    what, whose = f"{kinds.KINDS.get(event.kind, f'kind {event.kind}')} {event.id[:8]}", event.pubkey[:8]
    content_type = _ADVERTS.get(event.kind)
    if content_type is None or len(event.content) > MAX_EVENT_BYTES:
        raise RemoteProtocolError(what, "is no advert, or too long", whose=whose)
    try:
        json.loads(event.content, object_pairs_hook=refuse_repeated)
        body = msgspec.json.decode(event.content, type=content_type)
        check_values(body)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise RemoteProtocolError(what, f"content: {short_reason(error)}", whose=whose) from None
    except RemoteProtocolError as error:
        raise RemoteProtocolError(what, error.reason, whose=whose) from None
    if body.v != 1 or body.round < 0 or any(tag not in event.tags for tag in _required(body)):
        raise RemoteProtocolError(what, "is of an unknown version, or its tags lack something", whose=whose)
    if isinstance(body, Pointer):
        return msgspec.structs.replace(body, relays=relay_urls_untrusted(body.relays, MAX_RELAYS))
    return body


def draft_relay_list(relays: Sequence[str], created_at: UnixTime) -> Draft:
    """NIP-65: the relays where we read and write."""
    return Draft(created_at, kinds.RELAY_LIST, tuple(("r", url) for url in relays), "")


def draft_inbox_list(relays: Sequence[str], created_at: UnixTime) -> Draft:
    """NIP-17: the relays where we look for gift wraps."""
    return Draft(created_at, kinds.INBOX_RELAYS, tuple(("relay", url) for url in relays), "")


def read_inboxes_untrusted(event: Event) -> tuple[str, ...]:
    """Where the author of a verified list, NIP-17's or NIP-65's, reads: at most MAX_RELAYS URLs, perhaps none. Relays marked `write` are not read."""
    name = "relay" if event.kind == kinds.INBOX_RELAYS else "r"
    tags: Iterable[tuple[str, ...]] = islice(event.tags, MAX_TAGS_READ)
    return relay_urls_untrusted((tag[1] for tag in tags if len(tag) > 1 and tag[0] == name and tag[2:3] != ("write",)), MAX_RELAYS)


def draft_server_list(servers: Sequence[str], created_at: UnixTime) -> Draft:
    """BUD-03: the Blossom servers where our blobs lie, those that have all of them first."""
    return Draft(created_at, kinds.BLOB_SERVERS, tuple(("server", url) for url in servers), "")


def read_servers_untrusted(event: Event) -> tuple[str, ...]:
    """Where the author of a verified list (BUD-03) keeps blobs: at most MAX_SERVERS texts, which may be no URLs."""
    tags: Iterable[tuple[str, ...]] = islice(event.tags, MAX_TAGS_READ)
    return tuple(dict.fromkeys(tag[1] for tag in tags if len(tag) > 1 and tag[0] == "server"))[:MAX_SERVERS]


def draft_handler(created_at: UnixTime) -> Draft:
    """NIP-89: which kinds this program handles."""
    handled = tuple(("k", str(kind)) for kind in (kinds.MANIFEST, kinds.POINTER))
    content = msgspec.json.encode({"name": HANDLER_ID, "about": ABOUT}).decode()
    return Draft(created_at, kinds.HANDLER, (("d", HANDLER_ID), ("t", "nostrain"), *handled), content)
