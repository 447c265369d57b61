"""Every message body comes back from the wire as it went."""

from __future__ import annotations

import types
import typing
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nostrain.protocol import messages as m
from nostrain.protocol.event import Event
from nostrain.protocol.limits import MAX_BLOB_BYTES, MAX_URLS
from nostrain.protocol.manifest import BlobRef, RunManifest
from nostrain.units import Digest, EventId, Msat, Pubkey, UnixTime
from nostrain.wire.event import encode_event, parse_event_untrusted
from nostrain.wire.messages import KIND_OF, draft, read_message_untrusted
from tests.docs.examples import START, VALIDATORS
from tests.wire.changed import AUTHOR, EVERYTHING, ID, refused, resigned, with_content

PLAIN_BODIES = [kind for kind in KIND_OF if kind not in (m.OracleAnnouncements, m.Attestation, m.EpochAttestation)]


def signed(body: m.Body, created_at: int = START) -> Event:
    return AUTHOR.signer.sign(draft(body, UnixTime(created_at)))


NODE_ID = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
"""The generator of secp256k1."""
hex32 = st.binary(min_size=32, max_size=32).map(bytes.hex)
words = st.text(st.characters(exclude_categories=["C", "Z"], include_characters=" "), max_size=12)
blobs = st.builds(BlobRef, hex32, st.integers(1, MAX_BLOB_BYTES), st.lists(words, max_size=MAX_URLS).map(tuple))
SIMPLE: dict[Any, st.SearchStrategy[Any]] = {
    type(None): st.none(),
    msgspec.UnsetType: st.just(msgspec.UNSET),
    Digest: hex32,
    EventId: hex32,
    Pubkey: hex32,
    Msat: st.integers(0, 2**50),
    UnixTime: st.integers(0, 2**40 - 1),
    int: st.integers(-(2**61), 2**61),
    bool: st.booleans(),
    str: words,
    BlobRef: blobs,
    m.NodeAddress: st.sampled_from(
        [m.NodeAddress(NODE_ID, address) for address in ("203.0.113.7:9735", "[2001:db8::1]:1", f"{'a' * 56}.onion:65535")]
    ),
    m.Payout: st.sampled_from([party.payout() for party in VALIDATORS]),
}
ENDORSED: dict[Any, dict[str, st.SearchStrategy[Any]]] = {
    RunManifest: {"curations": st.just(())},
    m.Enrolment: {"oracle": st.none()},
    m.Announcement: {"validators": st.just(())},
    m.Dispute: {"evidence": st.lists(hex32, min_size=1, max_size=3, unique=True).map(lambda ids: tuple(sorted(ids)))},
}
"""What only an oracle or a curator can sign: the examples, and `test_curation`, have it. And what has an order."""


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Values of an annotated type, within the bounds that an honest sender keeps."""
    if kind in SIMPLE:
        return SIMPLE[kind]
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return st.sampled_from(args)
    if origin in (typing.Union, types.UnionType):
        return st.one_of(*(st.none() if option is type(None) else values(option) for option in args))
    if origin is tuple and args[-1] is Ellipsis:
        return st.lists(values(args[0]), max_size=3).map(tuple)
    if origin is tuple:
        return st.tuples(*map(values, args))
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return structs(kind)
    return values(kind.__supertype__)


def structs(kind: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    hints = typing.get_type_hints(kind)
    fixed: dict[str, st.SearchStrategy[Any]] = {"v": st.just(1), **ENDORSED.get(kind, {})}
    return st.builds(kind, **{name: fixed[name] if name in fixed else values(hints[name]) for name in kind.__struct_fields__})


@pytest.mark.parametrize("kind", PLAIN_BODIES, ids=lambda kind: kind.__name__)
@settings(max_examples=25)
@given(data=st.data())
def test_round_trip(kind: type[msgspec.Struct], data: st.DataObject) -> None:
    body = data.draw(structs(kind))
    event = signed(body)
    message = read_message_untrusted(parse_event_untrusted(encode_event(event)))
    assert message == m.Message(event.id, AUTHOR.pubkey, START, body, event)
    assert event.kind == KIND_OF[kind]


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        ({"id": NODE_ID[2:], "address": "1.2.3.4:9735"}, "its id is not a compressed key"),
        ({"id": "02" + "ff" * 32, "address": "1.2.3.4:9735"}, "its id is not a point"),
        ({"id": NODE_ID, "address": "1.2.3.4"}, "its address is not host:port"),
        ({"id": NODE_ID, "address": "1.2.3.4:0"}, "its address is not host:port"),
        ({"id": NODE_ID, "address": "1.2.3.4:65536"}, "its address is not host:port"),
        ({"id": NODE_ID, "address": "node.example:9735"}, "neither an IP address nor an onion service"),
        ({"id": NODE_ID, "address": "/var/run/x:9735"}, "neither an IP address nor an onion service"),
        ({"id": NODE_ID, "address": "::1:9735"}, "without brackets"),
        ({"id": NODE_ID, "address": "[fe80::1%eth0]:9735"}, "with a zone"),
        ({"id": NODE_ID, "address": "[1.2.3.4]:9735"}, "in brackets"),
        ({"id": NODE_ID, "address": "1.2.3.4:9735\n"}, "do not print"),
    ],
)
def test_where_a_node_is_said_to_be_is_an_address(node: dict[str, str], reason: str) -> None:
    refused(with_content("enrolment worker 0", node=node), reason)


@pytest.mark.parametrize("label", EVERYTHING)
def test_round_trip_of_the_examples(label: str) -> None:
    event = EVERYTHING[label]
    message = read_message_untrusted(event)
    said = draft(message.body, event.created_at)
    assert (said.kind, said.tags, said.content) == (event.kind, event.tags, event.content)


@pytest.mark.parametrize("label", EVERYTHING)
def test_every_tag_that_relays_index_is_required(label: str) -> None:
    event = EVERYTHING[label]
    for index, tag in enumerate(event.tags):
        without = event.tags[:index] + event.tags[index + 1 :]
        refused(resigned(event, tags=without), "its tags lack")
        refused(resigned(event, tags=(*without, (tag[0], tag[1] + "0"))), "its tags lack")
        refused(resigned(event, tags=(*without, (*tag, "wss://relay.example"))), "its tags lack")


def test_further_tags_and_their_order_mean_nothing() -> None:
    event = EVERYTHING["commitment 0"]
    more = (("alt", "a commitment"), *reversed(event.tags), ("e", ID))
    assert read_message_untrusted(resigned(event, tags=more)).body == read_message_untrusted(event).body


@pytest.mark.parametrize("label", EVERYTHING)
def test_unknown_fields_are_ignored(label: str) -> None:
    event = EVERYTHING[label]
    assert read_message_untrusted(with_content(label, later={"a": [1.5, None]})).body == read_message_untrusted(event).body
