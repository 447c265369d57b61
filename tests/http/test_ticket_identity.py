"""Who asks for a ticket proves a key: a signed event for this method, this address and this minute, and nothing else counts."""

from __future__ import annotations

import base64

import pytest

from nostrain.errors import RemoteProtocolError
from nostrain.http.l402_identity import HEADER, KIND, make_identity, read_identity_untrusted
from nostrain.protocol.event import Draft
from nostrain.units import UnixTime
from nostrain.wire.event import encode_event

from .ticket_world import START, World


async def test_requests_without_a_good_proof_of_the_key_are_401() -> None:
    world = World()
    url = world.url()

    async def status(header: str | None) -> int:
        return (await world.http.post(url, headers={} if header is None else {HEADER: header})).status_code

    good = make_identity(world.alice, "POST", url, world.clock.now())
    assert await status(good) == 402
    assert await status(None) == 401
    for header in (
        "",
        "Nostr",
        "Nostr %%%",
        "Nostr " + base64.b64encode(b"{}").decode(),
        good.replace("Nostr", "L402"),
        good[:-9] + "AAAAAAA==",
        make_identity(world.alice, "GET", url, world.clock.now()),
        make_identity(world.alice, "POST", url + "0", world.clock.now()),
        make_identity(world.alice, "POST", url.replace(":8402", ""), world.clock.now()),
        make_identity(world.alice, "POST", url, UnixTime(START - 61)),
        make_identity(world.alice, "POST", url, UnixTime(START + 61)),
        "Nostr " + "A" * 5000,
    ):
        assert await status(header) == 401, header


def test_identity_is_of_kind_27235() -> None:
    world = World()
    draft = Draft(created_at=START, kind=1, tags=(("u", world.url()), ("method", "POST")), content="")
    header = "Nostr " + base64.b64encode(encode_event(world.alice.sign(draft))).decode()
    with pytest.raises(RemoteProtocolError, match=f"is not {KIND}"):
        read_identity_untrusted(header, "POST", world.url(), START)


async def test_the_hosts_name_is_not_taken_from_the_request() -> None:
    world = World()
    url = world.url().replace("tickets.test", "evil.test")
    assert (await world.ask(url=url, Host="evil.test:8402")).status_code == 401
