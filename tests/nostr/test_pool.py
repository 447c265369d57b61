"""The pool's logic against scripted relays, in virtual time."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from nostrain.errors import ConfigError, LocalProtocolError, RemoteProtocolError, Unavailable
from nostrain.nostr.pool import RelayPool, open_pool
from nostrain.nostr.watch import Settings
from nostrain.protocol.event import Event, Filter
from nostrain.units import UnixTime
from nostrain.wire.event import encode_event, parse_event_untrusted
from tests.nostr.scripted_relay import ALICE, PlainSigner, ScriptedRelay, Wire, dial, note

WANTED = Filter(kinds=(8650,))
NOW = UnixTime(100_000)


def pool(
    signer: PlainSigner | None = None, settings: Settings | None = None, **relays: ScriptedRelay
) -> AbstractAsyncContextManager[RelayPool]:
    urls = [f"ws://{name}" for name in relays]
    return open_pool(urls, signer=signer, settings=settings, rng=random.Random(7), now=lambda: NOW, connect=dial(**relays))


async def take(events: trio.MemoryReceiveChannel[Event], count: int) -> list[str]:
    """Contents of the next `count` events."""
    with trio.fail_after(1_000):
        return [(await events.receive()).content for _ in range(count)]


def as_object(event: Event) -> Any:
    return json.loads(encode_event(event))


# Subscribing


async def test_history_is_paged_and_everything_arrives_once(autojump_clock: MockClock) -> None:
    stored = [note(str(i), created_at=1_000 + i // 2) for i in range(20)]
    relay = ScriptedRelay(*stored, cap=3)
    async with pool(a=relay) as relays, relays.subscribe([WANTED]) as events:
        assert sorted(await take(events, 20), key=int) == [str(i) for i in range(20)]
        await wait_all_tasks_blocked()
        with pytest.raises(trio.WouldBlock):
            events.receive_nowait()
        relay.broadcast(note("live", created_at=2_000))
        assert await take(events, 1) == ["live"]
        assert list(relay.wire.subscriptions) == ["1.0"]


async def test_two_filters_and_two_relays_collapse_duplicates(autojump_clock: MockClock) -> None:
    shared, only_b = note("shared"), note("b", kind=8651)
    a, b = ScriptedRelay(shared), ScriptedRelay(shared, only_b)
    async with pool(a=a, b=b) as relays, relays.subscribe([WANTED, Filter(authors=(ALICE.pubkey,))]) as events:
        assert sorted(await take(events, 2)) == ["b", "shared"]
        await wait_all_tasks_blocked()
        with pytest.raises(trio.WouldBlock):
            events.receive_nowait()
        assert relays.counts["duplicate"] > 0
        assert not relays.counts["bad event"]


async def test_reconnection_asks_from_the_cursor(autojump_clock: MockClock) -> None:
    relay = ScriptedRelay(note("old", created_at=5_000))
    async with pool(a=relay) as relays, relays.subscribe([WANTED]) as events:
        assert await take(events, 1) == ["old"]
        await wait_all_tasks_blocked()
        assert "since" not in relay.requests()[0][2]
        relay.wire.drop()
        relay.events.append(note("missed", created_at=5_010))
        relay.heard.clear()
        assert await take(events, 1) == ["missed"]
        assert relay.requests()[0][2]["since"] == 5_000 - 600
        assert relay.dials == 2


async def test_a_connection_lost_in_mid_history_is_followed_by_a_full_query(autojump_clock: MockClock) -> None:
    class Breaks(ScriptedRelay):
        def on_req(self, wire: Wire, name: str, wanted: Filter) -> None:
            if self.dials > 1:
                return super().on_req(wire, name, wanted)
            wire.say("EVENT", name, as_object(self.events[1]))
            return wire.drop()

    relay = Breaks(note("oldest", created_at=1_000), note("newest", created_at=90_000))
    async with pool(a=relay) as relays, relays.subscribe([WANTED]) as events:
        assert await take(events, 2) == ["newest", "oldest"]


async def test_relay_down_for_long_is_dialled_for_ever_with_growing_pauses(autojump_clock: MockClock) -> None:
    relay = ScriptedRelay(note("x"))
    relay.down = True
    async with pool(a=relay) as relays, relays.subscribe([WANTED]) as events:
        await trio.sleep(3_600)
        assert 3_600 / 60 < relay.dials < 3_600 / 30 + 10
        assert relays.connected == ()
        relay.down = False
        assert await take(events, 1) == ["x"]
        assert relays.connected == ("ws://a",)


async def test_bad_events_are_counted_named_and_dropped_without_ending_the_connection(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    genuine = note("genuine")
    relay = ScriptedRelay()
    async with pool(a=relay) as relays, relays.subscribe([WANTED]) as events:
        await wait_all_tasks_blocked()
        relay.wire.say("EVENT", "1.0", as_object(genuine) | {"content": "forged"})
        relay.wire.say("EVENT", "1.0", as_object(genuine) | {"sig": "00" * 64})
        relay.wire.say("EVENT", "1.0", {"id": 5})
        relay.wire.say("EVENT", "1.0", as_object(note(kind=1)))
        relay.wire.say("EVENT", "9.9", as_object(genuine))
        relay.wire.say("WHAT")
        relay.wire.say_raw("}")
        relay.wire.say("NOTICE", "hello")
        relay.wire.say("EOSE", "9.9")
        relay.wire.say("EVENT", "1.0", as_object(genuine))
        assert await take(events, 1) == ["genuine"]
        counted = {name: relays.counts[name] for name in ("bad event", "unwanted event", "unsubscribed", "bad message", "notice")}
        assert counted == {"bad event": 3, "unwanted event": 1, "unsubscribed": 1, "bad message": 2, "notice": 1}
        assert relay.dials == 1
    lines = [record.getMessage() for record in caplog.records if "bad event" in record.getMessage()]
    assert "relay ws://a" in lines[0]
    assert ALICE.pubkey in lines[0]


async def test_log_does_not_grow_with_every_misdeed(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    relay = ScriptedRelay()
    async with pool(a=relay) as relays:
        await wait_all_tasks_blocked()
        for _ in range(5_000):
            relay.wire.say("NOTICE", "spam")
        await wait_all_tasks_blocked()
        assert relays.counts["notice"] == 5_000
    assert sum("spam" in record.getMessage() for record in caplog.records) < 40


async def test_slow_reader_gets_everything_and_does_not_stall_publishing(autojump_clock: MockClock) -> None:
    relay = ScriptedRelay(*(note(str(i), created_at=1_000 + i) for i in range(30)), cap=5)
    settings = Settings(queue_size=10, page_size=5)
    async with pool(settings=settings, a=relay) as relays, relays.subscribe([WANTED]) as events:
        await wait_all_tasks_blocked()
        for i in range(30, 60):
            relay.broadcast(note(str(i), created_at=1_000 + i))
        await relays.publish(note("while the queue is full"))
        got = []
        for _ in range(60):
            got += await take(events, 1)
            await trio.sleep(1)
        assert sorted(got, key=int) == [str(i) for i in range(60)]
        assert relays.counts["queue full"] > 0
        assert relay.dials == 1


async def test_a_relay_may_close_what_was_asked_for_by_id_once_it_has_shown_it(autojump_clock: MockClock) -> None:
    class Closes(ScriptedRelay):
        def on_req(self, wire: Wire, name: str, wanted: Filter) -> None:
            super().on_req(wire, name, wanted)
            wire.say("CLOSED", name, "")

    relay = Closes(found := note("x"))
    async with pool(a=relay) as relays, relays.subscribe([Filter(ids=(found.id,))]) as events:
        assert await take(events, 1) == ["x"]
        await trio.sleep(10)
        asked = len(relay.requests())
        await trio.sleep(3_000)
        assert relays.counts["subscription closed"] == 0
        assert len(relay.requests()) == asked
        await trio.sleep(1_000)
        assert len(relay.requests()) > asked


async def test_leaving_a_subscription_closes_it_on_the_relay(autojump_clock: MockClock) -> None:
    relay = ScriptedRelay()
    async with pool(a=relay) as relays:
        async with relays.subscribe([WANTED, WANTED]) as events:
            await wait_all_tasks_blocked()
        await wait_all_tasks_blocked()
        assert relay.wire.subscriptions == {}
        with pytest.raises(trio.ClosedResourceError):
            events.receive_nowait()
        with pytest.raises(LocalProtocolError):
            await relays.subscribe([]).__aenter__()


async def test_reader_finds_the_end_when_the_pool_closes(autojump_clock: MockClock) -> None:
    relay = ScriptedRelay(note("x"))
    got: list[str] = []

    async def read(relays: RelayPool) -> None:
        async with relays.subscribe([WANTED]) as events:
            got.extend([event.content async for event in events])
        got.append("the end")

    async with trio.open_nursery() as nursery, pool(a=relay) as relays:
        nursery.start_soon(read, relays)
        await wait_all_tasks_blocked()
    assert got == ["x", "the end"]


async def test_reader_may_close_its_end_early(autojump_clock: MockClock) -> None:
    relay = ScriptedRelay()
    async with pool(a=relay) as relays, relays.subscribe([WANTED]) as events, relays.subscribe([WANTED]) as early:
        await early.aclose()
        await wait_all_tasks_blocked()
        relay.broadcast(note("x"))
        assert await take(events, 1) == ["x"]


async def test_closed_subscription_is_reopened_if_the_reason_allows(autojump_clock: MockClock) -> None:
    class Closes(ScriptedRelay):
        refusals = ["error: shutting down", "rate-limited: later"]

        def on_req(self, wire: Wire, name: str, wanted: Filter) -> None:
            if self.refusals:
                wire.say("CLOSED", name, self.refusals.pop(0))
                wire.say("CLOSED", "unknown", "error: whose?")
            else:
                super().on_req(wire, name, wanted)

    relay = Closes(note("x"))
    async with pool(a=relay) as relays, relays.subscribe([WANTED]) as events:
        assert await take(events, 1) == ["x"]
        assert relays.counts["subscription closed"] == 2
        relay.wire.say("CLOSED", "1.0", "blocked: go away")
        await wait_all_tasks_blocked()
        requests = len(relay.requests())
        await trio.sleep(300)
        assert len(relay.requests()) == requests


# Publishing


async def test_quorum_is_enough_and_a_dead_relay_blocks_nobody(autojump_clock: MockClock) -> None:
    a, b, dead = ScriptedRelay(), ScriptedRelay(), ScriptedRelay()
    dead.silent = True
    event = note("x")
    async with pool(a=a, b=b, dead=dead) as relays:
        started = trio.current_time()
        await relays.publish(event)
        assert trio.current_time() == started
        assert a.published() == b.published() == [event.id]


@pytest.mark.parametrize(("quorum", "needed"), [(None, 2), (1, 1), (2, 2), (99, 3)])
async def test_quorum_is_configured_up_to_the_number_of_relays(autojump_clock: MockClock, quorum: int | None, needed: int) -> None:
    parts = {name: ScriptedRelay() for name in "abc"}
    for part in list(parts.values())[needed:]:
        part.down = True
    async with pool(settings=Settings(quorum=quorum), **parts) as relays:
        await relays.publish(note())
        parts["a"].down = True
        parts["a"].wire.drop()
        with pytest.raises(Unavailable, match=f"{needed - 1} of {needed} relays"):
            await relays.publish(note())


async def test_unreachable_relays_are_unavailable_in_time(autojump_clock: MockClock) -> None:
    relay = ScriptedRelay()
    relay.down = True
    async with pool(a=relay) as relays:
        started = trio.current_time()
        with pytest.raises(Unavailable, match="0 of 1 relays"):
            await relays.publish(note())
        assert trio.current_time() - started == 30


@pytest.mark.parametrize("reason", ["invalid: bad", "blocked: you", "pow: 20", "restricted: members", "because"])
async def test_final_refusal_by_every_relay(autojump_clock: MockClock, reason: str) -> None:
    a, b = ScriptedRelay(), ScriptedRelay()
    a.verdicts = b.verdicts = [(False, reason), (False, reason)]
    async with pool(a=a, b=b) as relays:
        started = trio.current_time()
        with pytest.raises(RemoteProtocolError, match=f"refused: ws://a: {reason}|refused: ws://b: {reason}"):
            await relays.publish(note())
        assert trio.current_time() == started


async def test_refusals_are_final_when_no_quorum_is_left(autojump_clock: MockClock) -> None:
    a, b, c = ScriptedRelay(), ScriptedRelay(), ScriptedRelay()
    a.verdicts, c.down = [(False, "blocked: x")], True
    async with pool(a=a, b=b, c=c) as relays:
        with pytest.raises(Unavailable, match="1 of 2 relays took it; refused: ws://a: blocked: x"):
            await relays.publish(note())
        a.verdicts = b.verdicts = [(False, "blocked: x"), (False, "blocked: x")]
        with pytest.raises(RemoteProtocolError):
            await relays.publish(note())


async def test_duplicate_is_success(autojump_clock: MockClock) -> None:
    relay = ScriptedRelay()
    relay.verdicts = [(False, "duplicate: have it")]
    async with pool(a=relay) as relays:
        await relays.publish(note())
        assert len(relay.published()) == 1


async def test_rate_limit_and_error_are_retried_with_a_pause(autojump_clock: MockClock) -> None:
    relay = ScriptedRelay()
    relay.verdicts = [(False, "rate-limited: slow"), (False, "error: disk"), (True, "")]
    event = note()
    async with pool(a=relay) as relays:
        started = trio.current_time()
        await relays.publish(event)
        assert relay.published() == [event.id] * 3
        assert trio.current_time() - started >= 0.25 + 0.5


async def test_no_ok_means_reconnect_and_send_again(autojump_clock: MockClock) -> None:
    relay = ScriptedRelay()
    relay.verdicts = [None, (True, "")]
    event = note()
    async with pool(a=relay) as relays:
        await relays.publish(event)
        assert relay.dials == 2
        assert relay.published() == [event.id] * 2


async def test_publishing_the_same_event_twice_at_once(autojump_clock: MockClock) -> None:
    relay = ScriptedRelay()
    relay.verdicts = [None, (True, "")]
    async with pool(a=relay) as relays, trio.open_nursery() as nursery:
        nursery.start_soon(relays.publish, note())
        nursery.start_soon(relays.publish, note())
    assert relay.dials == 1


# Liveness and authentication


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
    assert (auth.kind, auth.pubkey, auth.created_at) == (22242, ALICE.pubkey, NOW)
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
