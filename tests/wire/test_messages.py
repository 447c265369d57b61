"""Message bodies on the wire: every body comes back as it went, and whatever else is in an event ends in one RemoteProtocolError."""

from __future__ import annotations

import base64
import json
import random
import types
import typing
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nostrain.crypto import schnorr
from nostrain.errors import LocalProtocolError, RemoteProtocolError
from nostrain.protocol import messages as m
from nostrain.protocol.event import Draft, Event, Tags
from nostrain.protocol.limits import MAX_BLOB_BYTES, MAX_EVENT_BYTES, MAX_ORACLE_ITEMS, MAX_URL, MAX_URLS
from nostrain.protocol.manifest import BlobRef, RunManifest
from nostrain.units import Digest, EventId, Msat, Pubkey, UnixTime
from nostrain.wire import dlc, kinds
from nostrain.wire.event import encode_event, parse_event_untrusted
from nostrain.wire.messages import KIND_OF, draft, read_message_untrusted
from tests.docs.examples import ROUNDS, SHOWN, START, VALIDATORS, WORKERS, Examples

EXAMPLES = Examples()
EVERYTHING = EXAMPLES.events | EXAMPLES.private | EXAMPLES.claims
AUTHOR = WORKERS[0]
ID = EventId("ab" * 32)
PLAIN_BODIES = [kind for kind in KIND_OF if kind not in (m.OracleAnnouncements, m.Attestation, m.EpochAttestation)]


def signed(body: m.Body, created_at: int = START) -> Event:
    return AUTHOR.signer.sign(draft(body, UnixTime(created_at)))


def resigned(event: Event, *, content: str | None = None, tags: Tags | None = None, kind: int | None = None) -> Event:
    """The event with something else in it, and an id and signature that fit: by one of the authors of the examples."""
    changed = Draft(
        created_at=event.created_at,
        kind=event.kind if kind is None else kind,
        tags=event.tags if tags is None else tags,
        content=event.content if content is None else content,
    )
    author = next((party for party in (*VALIDATORS, *WORKERS) if party.pubkey == event.pubkey), AUTHOR)
    return author.signer.sign(changed)


def with_content(label: str, **changes: object) -> Event:
    event = EVERYTHING[label]
    return resigned(event, content=json.dumps(json.loads(event.content) | changes))


def refused(event: Event, reason: str) -> None:
    with pytest.raises(RemoteProtocolError, match=reason) as raised:
        read_message_untrusted(event)
    assert event.id[:8] in raised.value.what
    assert raised.value.whose == event.pubkey[:8]


NODE_ID = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
"""The generator of secp256k1."""
hex32 = st.binary(min_size=32, max_size=32).map(bytes.hex)
words = st.text(st.characters(exclude_categories=["C", "Z"], include_characters=" "), max_size=12)
blobs = st.builds(BlobRef, hex32, st.integers(1, MAX_BLOB_BYTES), st.lists(words, max_size=MAX_URLS).map(tuple))
SIMPLE: dict[Any, st.SearchStrategy[Any]] = {
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


@pytest.mark.parametrize("version", [0, 2, -1, 2**63, 2**80])
def test_unknown_versions_are_refused(version: int) -> None:
    refused(with_content("receipt", v=version), "unknown version|out of range")


@pytest.mark.parametrize("version", [None, True, "1", 1.5, [1]])
def test_what_is_no_version_is_refused(version: object) -> None:
    refused(with_content("receipt", v=version), "Expected `int`")


def test_a_missing_version_is_refused() -> None:
    event = EVERYTHING["receipt"]
    content = {name: value for name, value in json.loads(event.content).items() if name != "v"}
    refused(resigned(event, content=json.dumps(content)), "missing required field `v`")


@pytest.mark.parametrize("kind", [*sorted(set(kinds.KINDS) - set(KIND_OF.values())), 0, 1, 5, 62, 65535])
def test_kinds_that_we_do_not_read_are_refused(kind: int) -> None:
    refused(resigned(EVERYTHING["receipt"], kind=kind), "not a kind that we read")


def test_a_body_under_another_kind_is_refused() -> None:
    for label, event in EVERYTHING.items():
        for kind in sorted(set(KIND_OF.values()) - {event.kind}):
            with pytest.raises(RemoteProtocolError, match=r"content: (Invalid value|Object missing)"):
                read_message_untrusted(resigned(event, kind=kind))
        assert read_message_untrusted(event).id == event.id, label


@pytest.mark.parametrize(
    ("label", "field", "value", "reason"),
    [
        ("receipt", "announcement", "AB" * 32, "announcement is not 32 bytes of lowercase hex"),
        ("receipt", "announcement", "ab" * 31, "announcement is not 32 bytes"),
        ("receipt", "announcement", "ab" * 32 + "\n", "announcement is not 32 bytes"),
        ("receipt", "run", "", "run is not 32 bytes"),
        ("receipt", "commitments", ["zz" * 32], r"commitments\[0\] is not 32 bytes"),
        ("receipt", "commitments", [ID] * 400, "characters of content"),
        ("receipt", "round", 2**62, "round does not fit into 63 bits"),
        ("receipt", "round", 10**400, "round does not fit|out of range"),
        ("receipt", "round", 1.5, "Expected `int`"),
        ("receipt", "round", "1", "Expected `int`"),
        ("receipt", "commitments", {}, "Expected `array`"),
        ("result", "accepted", None, "Expected `array`"),
        ("confirmation 0", "validation_nanonats", 2**62, "validation_nanonats does not fit"),
        ("offer", "amounts_msat", [-1, 1, 1, 1], r"amounts_msat\[0\] is -1"),
        ("offer", "instances", [["x"]], r"instances\[0\]\[0\] is not 32 bytes"),
        ("openings", "locks", [{"payment_hash": "x", "ephemeral": "", "feldman": [], "shares": []}], r"locks\[0\].payment_hash is not"),
        ("invoices", "bolt11", ["lnbc\n1"], r"bolt11\[0\] has characters that do not print"),
        ("enrolment worker 0", "name", "n" * 257, "name has 257 characters"),
        ("enrolment worker 0", "name", "\u202egnirob", "name has characters that do not print"),
        ("enrolment worker 0", "engine", "torch\u2028", "engine has characters that do not print"),
        ("result", "refused", [{"worker": ID, "reason": "r" * 257}], r"refused\[0\].reason has 257 characters"),
        ("result", "refused", [{"worker": ID, "reason": "a\nb"}], r"refused\[0\].reason has characters that do not print"),
        ("verdict 0", "scores", [{"worker": ID, "error": "e" * 257}], r"scores\[0\].error has 257 characters"),
        ("reveal 0", "blob", {"sha256": ID, "size": -1}, "blob.size is -1"),
        ("reveal 0", "blob", {"sha256": ID, "size": 0}, "blob.size is 0"),
        ("reveal 0", "blob", {"sha256": ID, "size": MAX_BLOB_BYTES + 1}, "blob.size is 1099511627777"),
        ("reveal 0", "blob", {"sha256": ID[1:], "size": 1}, "blob.sha256 is not 32 bytes"),
        ("reveal 0", "blob", {"sha256": ID, "size": 1, "urls": ["http://h"] * (MAX_URLS + 1)}, "blob.urls are more than 4"),
        ("reveal 0", "blob", {"sha256": ID, "size": 1, "urls": ["h" * (MAX_URL + 1)]}, "blob.urls are .* longer than 256 characters"),
        ("reveal 0", "blob", {"sha256": ID, "size": 1, "urls": ["http://h/\r\n"]}, "blob.urls are .* do not print"),
        ("enrolment worker 0", "role", "coordinator", "Invalid enum value"),
        ("enrolment worker 0", "type", "receipt", "Invalid value 'receipt'"),
    ],
)
def test_values_that_cannot_be_are_refused(label: str, field: str, value: object, reason: str) -> None:
    refused(with_content(label, **{field: value}), reason)


def test_a_deadline_in_another_geological_age_is_refused() -> None:
    late = json.loads(EVERYTHING["announcement"].content)["deadlines"] | {"attest_by": 2**40}
    refused(with_content("announcement", deadlines=late), "deadlines.attest_by is 1099511627776")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "content:"),
        ("null", "content:"),
        ("[]", "content:"),
        ('{"v":1', "content:"),
        ('{"v":1,"a":' + "[" * 5000 + "}", "content:"),
        ('{"v":1}\ufeff', "content:"),
        ('{"v":NaN}', "content:"),
        ('{"v":1,"run":"\\ud800"}', "content:"),
        (" " * (MAX_EVENT_BYTES + 1), "16385 characters of content"),
    ],
)
def test_content_that_is_no_body_is_refused(content: str, reason: str) -> None:
    refused(resigned(EVERYTHING["receipt"], content=content), reason)


def test_the_reason_is_one_line_whatever_the_sender_writes() -> None:
    with pytest.raises(RemoteProtocolError, match="ERROR forged line") as raised:
        read_message_untrusted(with_content("receipt", type="a\nERROR forged line\u2028\x1b[31m"))
    assert str(raised.value).isprintable()


@pytest.mark.parametrize("twice", ['"round":1', '"later":0', '"deep":{"a":1,"b":2}'])
def test_a_member_given_twice_is_refused(twice: str) -> None:
    event = EVERYTHING["receipt"]
    again = f"{{{twice},{twice.replace('1', '2')},{event.content[1:]}" if "round" not in twice else f"{{{twice},{event.content[1:]}"
    refused(resigned(event, content=again), "a member is given twice")


def test_a_member_given_twice_deep_inside_is_refused() -> None:
    event = EVERYTHING["reveal 0"]
    refused(resigned(event, content=event.content.replace('"size":', '"size":1,"size":')), "a member is given twice")


# --- endorsements and oracles ---------------------------------------------------------------------------------------


RUN = EXAMPLES.run
OTHER_CHAIN = VALIDATORS[1].chain_link(RUN, 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"endorsement": ""},
        {"endorsement": "00" * 64},
        {"endorsement": VALIDATORS[0].endorsement(RUN).upper()},
        {"endorsement": " ".join(VALIDATORS[0].endorsement(RUN))},
        {"endorsement": VALIDATORS[1].endorsement(RUN)},
        {"endorsement": VALIDATORS[0].endorsement(ID)},
        {"endorsement": VALIDATORS[0].endorsement(RUN, length=ROUNDS + 1)},
        {"chain_length": ROUNDS + 1},
        {"chain_end": OTHER_CHAIN},
        {"oracle": VALIDATORS[1].oracle},
        {"oracle": VALIDATORS[1].oracle, "endorsement": VALIDATORS[1].endorsement(RUN), "chain_end": OTHER_CHAIN},
    ],
)
def test_an_oracle_key_that_does_not_endorse_key_and_chain_is_refused(changes: dict[str, object]) -> None:
    refused(with_content("enrolment validator 0", **changes), f"does not endorse {VALIDATORS[0].pubkey[:8]} and its hash chain")
    entries = json.loads(EVERYTHING["announcement"].content)["validators"]
    listed = [entries[0] | changes, *entries[1:]]
    refused(with_content("announcement", validators=listed), f"does not endorse {VALIDATORS[0].pubkey[:8]} and its hash chain")


@pytest.mark.parametrize("missing", ["endorsement", "chain_end"])
def test_an_enrolled_oracle_needs_endorsement_and_chain(missing: str) -> None:
    refused(with_content("enrolment validator 0", **{missing: None}), "an oracle key without endorsement or hash chain")
    entries = json.loads(EVERYTHING["announcement"].content)["validators"]
    refused(with_content("announcement", validators=[entries[0] | {missing: None}]), f"Expected `str`.*{missing}")


def test_an_entry_under_another_validators_key_is_refused() -> None:
    entries = json.loads(EVERYTHING["announcement"].content)["validators"]
    refused(with_content("announcement", validators=[entries[0] | {"pubkey": WORKERS[0].pubkey}]), "does not endorse")


def test_an_entry_endorsed_for_another_run_is_refused() -> None:
    entry = msgspec.to_builtins(VALIDATORS[0].entry(ID))
    refused(with_content("announcement", validators=[entry]), "does not endorse")


def item_of(body: m.OracleAnnouncements | m.Attestation, tlv: bytes) -> dict[str, object]:
    return {"items": [{"payee": body.items[0].payee, "tlv": base64.b64encode(tlv).decode()}]}


def announcements() -> m.OracleAnnouncements:
    body = read_message_untrusted(EVERYTHING["oracle announcements 0"]).body
    assert isinstance(body, m.OracleAnnouncements)
    return body


def attestation() -> m.Attestation:
    body = read_message_untrusted(EVERYTHING["attestation 0"]).body
    assert isinstance(body, m.Attestation)
    return body


def test_what_is_read_of_an_oracle_is_what_its_tlv_says() -> None:
    promised, kept = announcements().items[0], attestation().items[0]
    data = base64.b64decode(promised.tlv)
    assert promised.digest == sha256(data).hexdigest()
    assert promised.event_id == f"nostrain/1/{EXAMPLES.round_id}/{WORKERS[0].pubkey}/0"
    assert (kept.event_id, kept.oracle, kept.nonces) == (promised.event_id, promised.oracle, promised.nonces)
    assert kept.digits == (1, 1, 1, 1)


def test_an_announcement_under_the_plain_convention_is_refused() -> None:
    parsed = dlc.parse_announcement_untrusted(base64.b64decode(announcements().items[0].tlv))
    event_tlv = dlc.encode_event(parsed.event)
    value = event_tlv[3 + (1 if len(event_tlv) < 256 else 3) :]
    plain = schnorr.sign(VALIDATORS[0].root.oracle_key(), sha256(value).digest()).hex()
    tlv = dlc.encode_announcement(msgspec.structs.replace(parsed, signature=plain))
    assert dlc.parse_announcement_untrusted(tlv).convention is dlc.Convention.PLAIN_SHA256
    refused(with_content("oracle announcements 0", **item_of(announcements(), tlv)), "under the tagged convention")


@pytest.mark.parametrize("form", [dlc.DigitDescriptor(4, base=10), dlc.DigitDescriptor(3, signed=True), dlc.EnumDescriptor(("0", "1"))])
def test_an_announcement_that_is_no_thermometer_is_refused(form: dlc.DigitDescriptor | dlc.EnumDescriptor) -> None:
    parsed = dlc.parse_announcement_untrusted(base64.b64decode(announcements().items[0].tlv))
    nonces = parsed.event.nonces[: 1 if isinstance(form, dlc.EnumDescriptor) else 4]
    event = msgspec.structs.replace(parsed.event, descriptor=form, nonces=nonces)
    signature = schnorr.sign(VALIDATORS[0].root.oracle_key(), dlc.announcement_message(event)).hex()
    tlv = dlc.encode_announcement(dlc.Announcement(signature, VALIDATORS[0].oracle, event))
    refused(with_content("oracle announcements 0", **item_of(announcements(), tlv)), "unsigned binary digits")


def test_an_attestation_under_the_plain_convention_is_refused() -> None:
    key, nonces = VALIDATORS[0].root.oracle_key(), range(77, 81)
    signatures = tuple(schnorr.sign_with_nonce(key, nonce, sha256(b"1").digest()).hex() for nonce in nonces)
    parsed = dlc.parse_attestation_untrusted(base64.b64decode(attestation().items[0].tlv))
    for event_id in (None, parsed.event_id):
        tlv = dlc.encode_attestation(msgspec.structs.replace(parsed, event_id=event_id, signatures=signatures, outcomes=("1",) * 4))
        assert dlc.parse_attestation_untrusted(tlv).convention is dlc.Convention.PLAIN_SHA256
        refused(with_content("attestation 0", **item_of(attestation(), tlv)), "under the tagged convention")


@pytest.mark.parametrize("text", ["", "!", "AAAA", "fdd824", "QQ==\n", "QQ=", "é" * 8])
def test_what_is_no_tlv_is_refused(text: str) -> None:
    items = [{"payee": WORKERS[0].pubkey, "tlv": text}]
    refused(with_content("oracle announcements 0", items=items), "base64|promised|expected|TLV|BigSize|do not print")
    refused(with_content("attestation 0", items=items), "base64|promised|expected|TLV|BigSize|do not print")


def test_too_many_oracle_items_are_refused() -> None:
    items = [{"payee": WORKERS[0].pubkey, "tlv": ""}] * (MAX_ORACLE_ITEMS + 1)
    refused(with_content("oracle announcements 0", items=items), "26 oracle announcements, 25 is the limit")


# --- bounds ---------------------------------------------------------------------------------------------------------


def test_we_do_not_write_what_would_not_fit() -> None:
    with pytest.raises(LocalProtocolError, match=r"a Receipt of \d+ bytes is too large"):
        draft(m.Receipt(ID, ID, 1, (ID,) * 240), START)


def test_a_manifest_of_too_many_levels_is_refused() -> None:
    scoring = json.loads(EVERYTHING["manifest"].content)["scoring"] | {"levels_ppm": list(range(5))}
    refused(with_content("manifest", scoring=scoring), "5 levels, 4 is the limit")


def test_a_manifest_needs_only_what_has_no_default() -> None:
    content = json.loads(EVERYTHING["manifest"].content)
    optional = [field.name for field in msgspec.structs.fields(RunManifest) if field.default is not msgspec.NODEFAULT and field.name != "v"]
    body = read_message_untrusted(with_content("manifest")).body
    bare = {name: value for name, value in content.items() if name not in optional}
    read = read_message_untrusted(resigned(EVERYTHING["manifest"], content=json.dumps(bare))).body
    assert isinstance(read, RunManifest)
    defaults = {field.name: field.default for field in msgspec.structs.fields(RunManifest) if field.name in optional}
    assert len(defaults) >= 7
    assert read == msgspec.structs.replace(body, **defaults)


# --- mutations ------------------------------------------------------------------------------------------------------

JUNK: list[Any] = [None, True, -1, 2**62, 2**63, 2**80, 1.5, "", "\u0000", "a\nb", "g" * 64, "ab" * 32, [], {}, [[]], [None], "x" * 5000]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Path of every value inside of a JSON value."""
    yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from places(child, (*path, key))


def replaced(value: Any, path: tuple[Any, ...], junk: Any) -> Any:
    if not path:
        return junk
    copy = value.copy()
    copy[path[0]] = replaced(value[path[0]], path[1:], junk)
    return copy


def read_or_refuse(event: Event) -> bool:
    """Whether the event was understood. Any error but RemoteProtocolError fails the test."""
    try:
        return read_message_untrusted(event).id == event.id
    except RemoteProtocolError:
        return False


@pytest.mark.parametrize("label", [label for label in SHOWN.values() if label in EVERYTHING])
def test_any_value_may_be_anything(label: str, rng: random.Random) -> None:
    content = json.loads(EVERYTHING[label].content)
    everywhere = list(places(content))
    understood = 0
    for path in rng.sample(everywhere, min(len(everywhere), 12)):
        for junk in JUNK:
            text = json.dumps(replaced(content, path, junk))
            understood += read_or_refuse(resigned(EVERYTHING[label], content=text))
    assert understood < 12 * len(JUNK) / 2, "most of what cannot be is refused"


@pytest.mark.parametrize("label", [label for label in SHOWN.values() if label in EVERYTHING])
def test_mutated_text_is_refused_or_read(label: str, rng: random.Random) -> None:
    original = EVERYTHING[label].content
    for _ in range(60):
        at, end = sorted(rng.choices(range(len(original)), k=2))
        middle = rng.choice(["", original[end : end + 8], '"', "}", "9" * 30, "\\u0000", "é"])
        text = original[:at] + middle + original[rng.choice([at, at + 1, end]) :]
        event = resigned(EVERYTHING[label], content=text)
        assert read_or_refuse(event) in (True, False)
        assert parse_event_untrusted(encode_event(event)) == event
