"""Connections of the pool: relays that do not answer or do not read, and authentication on demand (NIP-42)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from nostrain.errors import ConfigError, RemoteProtocolError
from nostrain.nostr.pool import open_pool
from nostrain.protocol.event import Event
from nostrain.wire.event import parse_event_untrusted
from tests.nostr.pools import START, WANTED, pool, take
from tests.nostr.scripted_relay import ALICE, ScriptedRelay, Wire, note


async def test_unanswered_ping_means_reconnect(autojump_clock: MockClock) -> None:
    relay = ScriptedRelay()
    relay.ignores_pings = True
    async with pool(a=relay) as relays:
        await trio.sleep(29.9)
        assert (relay.dials, relay.pings, relays.connected) == (1, 1, ("ws://a",))
        relay.ignores_pings = False
        await trio.sleep(60)
        assert relay.dials == 2
        assert relay.pings >= 3


async def test_a_relay_that_does_not_read_is_left(autojump_clock: MockClock) -> None:
    relay = ScriptedRelay()
    relay.ignores_sends = True
    async with pool(a=relay) as relays, trio.open_nursery() as nursery:
        nursery.start_soon(relays.publish, note())
        await trio.sleep(9.9)
        relay.ignores_sends = False
        assert relay.dials == 1
    assert relay.dials == 2


class Guarded(ScriptedRelay):
    """Wants NIP-42 authentication by ALICE, for the URL ws://a."""

    def __init__(self, *events: Event, admits: Callable[[Event], bool] = lambda _: True) -> None:
        super().__init__(*events)
        self._admits, self._known = admits, False
        self.auths: list[Event] = []

    def on_message(self, wire: Wire, message: Any) -> None:
        if message[0] == "AUTH":
            auth = parse_event_untrusted(message[1])
            self.auths.append(auth)
            self._known = self._admits(auth)
            wire.say("OK", auth.id, self._known, "" if self._known else "restricted: not you")
        elif self._known or message[0] == "CLOSE":
            super().on_message(wire, message)
        elif message[0] == "REQ":
            wire.say("CLOSED", message[1], "auth-required: who are you?")
        else:
            wire.say("OK", message[1]["id"], False, "auth-required: who are you?")
            wire.say("AUTH", "chal-lenge")


async def test_authentication_on_challenge_opens_the_relay(autojump_clock: MockClock) -> None:
    relay = Guarded(note("stored"))
    async with pool(signer=ALICE, a=relay) as relays, relays.subscribe([WANTED]) as events:
        await wait_all_tasks_blocked()
        await relays.publish(note("mine"))
        assert await take(events, 1) == ["stored"]
    (auth,) = relay.auths
    assert (auth.kind, auth.pubkey, auth.created_at) == (22242, ALICE.pubkey, START)
    assert auth.tags == (("relay", "ws://a"), ("challenge", "chal-lenge"))


async def test_refused_authentication_is_final(autojump_clock: MockClock) -> None:
    async with pool(signer=ALICE, a=Guarded(admits=lambda _: False)) as relays:
        with pytest.raises(RemoteProtocolError, match="auth-required"):
            await relays.publish(note())
        assert relays.counts["authentication refused"] == 1


async def test_without_a_signer_we_never_authenticate(autojump_clock: MockClock) -> None:
    relay = Guarded()
    async with pool(a=relay) as relays:
        with pytest.raises(RemoteProtocolError, match="auth-required"):
            await relays.publish(note())
    assert relay.auths == []


async def test_challenges_are_answered_a_bounded_number_of_times(autojump_clock: MockClock) -> None:
    relay = ScriptedRelay()
    async with pool(signer=ALICE, a=relay):
        await wait_all_tasks_blocked()
        for i in range(100):
            relay.wire.say("AUTH", f"challenge {i}")
        await wait_all_tasks_blocked()
        assert len([message for message in relay.heard if message[0] == "AUTH"]) == 8


@pytest.mark.parametrize("urls", [[], ["http://x"], ["ws://a", "relay"]])
async def test_bad_configuration_is_said(autojump_clock: MockClock, urls: list[str]) -> None:
    with pytest.raises(ConfigError, match="relay"):
        await open_pool(urls).__aenter__()
