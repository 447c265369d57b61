"""Where authors keep their blobs, as their newest lists on relays say, in virtual time."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from nostrain.nostr import server_lists
from nostrain.nostr.server_lists import LOOKUP_S, NONE_S, REMEMBER_S, RelayedServerLists
from nostrain.protocol.event import Event
from nostrain.testing.relays import FakeRelayNetwork
from nostrain.units import UnixTime
from nostrain.wire.discovery import draft_server_list

from .scripted_relay import PlainSigner

ALICE, EVE = PlainSigner("alice"), PlainSigner("eve")


def listed(signer: PlainSigner, at: int, *servers: str) -> Event:
    return signer.sign(draft_server_list(servers, UnixTime(at)))


async def test_the_newest_list_of_the_author_counts_and_is_remembered_for_a_while(autojump_clock: MockClock) -> None:
    network = FakeRelayNetwork()
    async with network.open("reader") as relays:
        lists = RelayedServerLists(relays)
        assert await lists.servers(ALICE.pubkey) == ()
        await relays.publish(listed(ALICE, 1_000, "https://old.example"))
        await relays.publish(listed(ALICE, 2_000, "https://new.example", "https://other.example"))
        await relays.publish(listed(EVE, 3_000, "https://eve.example"))
        assert await lists.servers(ALICE.pubkey) == ()
        await trio.sleep(NONE_S)
        assert await lists.servers(ALICE.pubkey) == ("https://new.example", "https://other.example")
        await relays.publish(listed(ALICE, 4_000, "https://newest.example"))
        begin = trio.current_time()
        assert (await lists.servers(ALICE.pubkey))[0] == "https://new.example"
        assert trio.current_time() == begin
        await trio.sleep(REMEMBER_S)
        assert await lists.servers(ALICE.pubkey) == ("https://newest.example",)
        assert trio.current_time() == begin + REMEMBER_S + LOOKUP_S


async def test_what_is_remembered_is_bounded(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_lists, "REMEMBERED", 2)
    async with FakeRelayNetwork().open("reader") as relays:
        lists = RelayedServerLists(relays)
        for number in range(5):
            await lists.servers(PlainSigner(str(number)).pubkey)
        assert len(lists._known) == 2
