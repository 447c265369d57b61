"""Adverts, relay lists and addresses of runs: what we write is read again, what strangers write is at worst refused."""

from __future__ import annotations

import json

import msgspec
import nostr_sdk
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nostrain.errors import RemoteProtocolError
from nostrain.protocol.discovery import Pointer, Presence, RunAddress
from nostrain.protocol.event import Draft, Event
from nostrain.protocol.limits import MAX_RELAYS
from nostrain.units import EventId, Pubkey, UnixTime
from nostrain.wire import kinds
from nostrain.wire.discovery import (
    draft_advert,
    draft_handler,
    draft_inbox_list,
    draft_relay_list,
    draft_server_list,
    read_advert_untrusted,
    read_inboxes_untrusted,
    read_servers_untrusted,
)
from nostrain.wire.event import encode_event
from nostrain.wire.nip19_run import nevent, parse_run_untrusted
from nostrain.wire.relay_url import relay_url_untrusted
from tests.nostr.scripted_relay import ALICE

RUN = EventId("ab" * 32)
NOW = UnixTime(1_800_000_000)
POINTER = Pointer(RUN, "a run", 8, 3, "running", 5, 3, ("wss://relay.example",))
PRESENCE = Presence(RUN, "worker", "alice", 3, "training")


def signed(draft: Draft) -> Event:
    return ALICE.sign(draft)


def changed(draft: Draft, **content: object) -> Event:
    return signed(msgspec.structs.replace(draft, content=json.dumps(json.loads(draft.content) | content)))


@pytest.mark.parametrize("body", [POINTER, PRESENCE])
def test_an_advert_is_read_as_it_was_written(body: Pointer | Presence) -> None:
    event = signed(draft_advert(body, NOW))
    assert read_advert_untrusted(event) == body
    assert event.tag("d") == RUN
    assert event.kind in kinds.ADVERTS


@pytest.mark.parametrize(
    "content",
    [
        {"v": 2},
        {"round": -1},
        {"round": 1 << 63},
        {"state": "paid"},
        {"run": "x"},
        {"run": "cd" * 32},
        {"name": "a\nb"},
        {"name": "x" * 300},
    ],
)
def test_what_cannot_be_is_refused(content: dict[str, object]) -> None:
    with pytest.raises(RemoteProtocolError):
        read_advert_untrusted(changed(draft_advert(POINTER, NOW), **content))


def test_an_advert_of_another_kind_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="no advert"):
        read_advert_untrusted(signed(draft_handler(NOW)))
    with pytest.raises(RemoteProtocolError):
        read_advert_untrusted(signed(msgspec.structs.replace(draft_advert(POINTER, NOW), kind=kinds.PRESENCE)))


def test_a_repeated_member_is_refused() -> None:
    draft = draft_advert(PRESENCE, NOW)
    with pytest.raises(RemoteProtocolError, match="twice"):
        read_advert_untrusted(signed(msgspec.structs.replace(draft, content=draft.content[:-1] + ',"round":4}')))


def test_relays_of_a_pointer_that_are_none_are_left_out_and_there_are_few() -> None:
    urls = ["http://a", "wss://b/", "wss://b", *(f"wss://c{number}" for number in range(20))]
    pointer = read_advert_untrusted(changed(draft_advert(POINTER, NOW), relays=urls))
    assert isinstance(pointer, Pointer)
    assert pointer.relays[:2] == ("wss://b", "wss://c0")
    assert len(pointer.relays) == MAX_RELAYS


def test_what_somebody_is_doing_is_said_in_a_few_words() -> None:
    with pytest.raises(RemoteProtocolError, match="doing has 300 characters"):
        read_advert_untrusted(signed(draft_advert(Presence(RUN, "worker", "w", 0, "x" * 300), NOW)))


@given(st.binary(max_size=100))
def test_adverts_of_strangers(data: bytes) -> None:
    content = data.decode("latin-1").translate(dict.fromkeys(range(32)))
    with pytest.raises(RemoteProtocolError):
        read_advert_untrusted(signed(msgspec.structs.replace(draft_advert(POINTER, NOW), content=content)))


def test_a_list_says_where_its_author_reads() -> None:
    urls = ("wss://a", "ws://b:81/path")
    assert read_inboxes_untrusted(signed(draft_inbox_list(urls, NOW))) == urls
    assert read_inboxes_untrusted(signed(draft_relay_list(urls, NOW))) == urls
    tags = (("r", "wss://read", "read"), ("r", "wss://write", "write"), ("r",), ("relay", "wss://other"), ("r", "ftp://x"))
    assert read_inboxes_untrusted(signed(Draft(NOW, kinds.RELAY_LIST, tags, ""))) == ("wss://read",)


def test_a_list_of_thousands_is_cut() -> None:
    tags = tuple(("relay", f"wss://host{number}") for number in range(1_500))
    assert len(read_inboxes_untrusted(signed(Draft(NOW, kinds.INBOX_RELAYS, tags, "")))) == MAX_RELAYS


def test_handler_information_names_the_kinds_that_are_handled() -> None:
    event = signed(draft_handler(NOW))
    assert [tag[1] for tag in event.tags if tag[0] == "k"] == [str(kinds.MANIFEST), str(kinds.POINTER)]
    assert json.loads(event.content)["name"] == "nostrain"


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("wss://Relay.Example/", "wss://relay.example"),
        ("wss://relay.example:443/a/", "wss://relay.example/a"),
        ("ws://127.0.0.1:80", "ws://127.0.0.1"),
        ("ws://[::1]:7000", "ws://[::1]:7000"),
    ],
)
def test_one_spelling_of_a_relay(text: str, spelled: str) -> None:
    assert relay_url_untrusted(text) == spelled
    assert relay_url_untrusted(spelled) == spelled


@pytest.mark.parametrize(
    "text",
    ["", "http://a", "wss://", "wss://u:p@a", "wss://a?x", "wss://a#x", "wss://a b", "wss://a\n", "wss://ä", "wss://a:99999", "wss://[", "wss://" + "a" * 300, "wss://" + "a" * 64 + ".example", "wss://a..b"],
)  # fmt: skip
def test_what_is_no_relay_is_refused(text: str) -> None:
    with pytest.raises(RemoteProtocolError):
        relay_url_untrusted(text)


def test_the_address_of_a_run_is_read_as_it_was_written() -> None:
    address = RunAddress(RUN, ALICE.pubkey, ("wss://a", "wss://b"))
    assert parse_run_untrusted(nevent(address)) == address
    assert parse_run_untrusted(nevent(RunAddress(RUN))) == RunAddress(RUN)
    assert parse_run_untrusted(RUN) == RunAddress(RUN)


def test_a_relay_that_no_address_has_room_for_is_left_out() -> None:
    relays = (f"wss://{'a' * 250}", "wss://" + "é" * 200, "wss://b")
    assert parse_run_untrusted(nevent(RunAddress(RUN, relays=relays))).relays == ("wss://b",)


def test_nostr_sdk_reads_our_address_and_our_lists() -> None:
    theirs = nostr_sdk.Nip19Event.from_bech32(nevent(RunAddress(RUN, ALICE.pubkey, ("wss://relay.example",))))
    assert theirs.event_id().to_hex() == RUN
    author, kind = theirs.author(), theirs.kind()
    assert author is not None
    assert kind is not None
    assert (author.to_hex(), kind.as_u16()) == (ALICE.pubkey, kinds.MANIFEST)
    assert [str(url) for url in theirs.relays()] == ["wss://relay.example"]
    lists = nostr_sdk.Event.from_json(encode_event(signed(draft_relay_list(("wss://a.example",), NOW))).decode())
    assert [str(url) for url in nostr_sdk.extract_relay_list(lists)] == ["wss://a.example"]
    inbox = nostr_sdk.Event.from_json(encode_event(signed(draft_inbox_list(("wss://a.example",), NOW))).decode())
    assert [str(url) for url in nostr_sdk.nip17_extract_relay_list(inbox)] == ["wss://a.example"]


SPELLED_BY_NOSTR_SDK = (
    "nevent1qqs2h2at4w46h2at4w46h2at4w46h2at4w46h2at4w46h2at4w46h2czyp75p2k0lkmk9sksq7wg34effln3v5rg7ldhm4fzldw3l6emrjvegqcyqqqzrjspzdmhxue69"
    "uhhyetvv9ujuetcv9khqmr9yf2hk9",
    "naddr1qpqxzcnpvfskyctzv93xzcnpvfskyctzv93xzcnpvfskyctzv93xzcnpvfskyctzv93xzcnpvfskyctzv93xzcnpvfskyctzv93xzcnpvgpzql2q4t8lmdmzctgq08yg6u55"
    "leck2p500kma6530khglava3exv5qvzqqqyklgq3xamnwvaz7tmjv4kxz7fwv4uxzmtsd3jsvfps9m",
)


@pytest.mark.parametrize("text", SPELLED_BY_NOSTR_SDK, ids=["nevent", "naddr"])
def test_other_peoples_spelling_is_read(text: str) -> None:
    coordinator = Pubkey("7d40aacffdb762c2d0079c88d7294fe7165068f7db7dd522fb5d1feb3b1c9994")
    assert parse_run_untrusted(text) == RunAddress(RUN, coordinator, ("wss://relay.example",))


@pytest.mark.parametrize("text", ["", "any", "AB" * 32, "npub1xyz", nevent(RunAddress(RUN))[:-1] + "q", "nevent1" + "q" * 6_000])
def test_what_is_no_run_is_refused(text: str) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_run_untrusted(text)


@given(st.text(alphabet="qpzry9x8gf2tvdw0s3jn54khce6mua7l", max_size=80), st.sampled_from(["nevent1", "naddr1"]))
def test_addresses_of_strangers(text: str, prefix: str) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_run_untrusted(prefix + text)


def test_a_list_of_blob_servers_is_read_in_order_and_only_so_far() -> None:
    servers = ("https://a.example", "https://b.example")
    assert read_servers_untrusted(signed(draft_server_list(servers, NOW))) == servers
    tags = (("server",), ("r", "https://c.example"), *(("server", f"https://{number % 7}.example") for number in range(200)))
    assert read_servers_untrusted(signed(Draft(NOW, kinds.BLOB_SERVERS, tags, ""))) == tuple(
        f"https://{number}.example" for number in range(4)
    )
