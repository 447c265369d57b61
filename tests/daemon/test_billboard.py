"""What daemons advertise, through a whole run in virtual time: the pointer follows the run, presence is seen by participants and forgotten."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
import trio
from trio.testing import MockClock

from nostrain.daemon import billboard
from nostrain.daemon.billboard import MAX_ONLINE, PRESENCE_S, STALE_S, Billboard
from nostrain.errors import Unavailable
from nostrain.protocol.discovery import Pointer, Presence
from nostrain.protocol.event import Draft, Event
from nostrain.testing.participant import Participant
from nostrain.testing.simulation import Plan, Simulation
from nostrain.units import UnixTime
from nostrain.wire import kinds
from nostrain.wire.check import MAX_WORDS
from nostrain.wire.control import MAX_LINE
from nostrain.wire.discovery import draft_advert, read_advert_untrusted, read_inboxes_untrusted, read_servers_untrusted
from tests.daemon.world import until
from tests.nostr.scripted_relay import PlainSigner

OURS = ("wss://relay.example",)
SERVER = "https://blobs.example"
PLAN = Plan(rounds=3, workers=2, validators=3, paid=False)


def pointers(sim: Simulation) -> list[Pointer]:
    adverts = [read_advert_untrusted(event) for event in sim.relays.events.values() if event.kind == kinds.POINTER]
    return [body for body in adverts if isinstance(body, Pointer)]


async def start(nursery: trio.Nursery, one: Participant, *, present: bool = True) -> Billboard:
    await until(lambda: one.runtime is not None)
    assert one.runtime is not None
    board = Billboard(one.runtime, OURS, random.Random(one.name), present=present, servers=(SERVER,))
    nursery.start_soon(board.run)
    return board


async def test_a_run_is_advertised_from_its_beginning_to_its_end(tmp_path: Path, autojump_clock: MockClock) -> None:
    sim = Simulation(PLAN, tmp_path)
    seen: list[Pointer] = []
    async with sim.running(), trio.open_nursery() as nursery:
        boards = {name: await start(nursery, one) for name, one in sim.participants.items()}
        everyone = list(sim.participants.values())
        crowded: set[str] = set()
        while not all(one.run is not None and one.run.finished for one in everyone):
            await trio.sleep(5)
            seen += pointers(sim)
            crowded = max(crowded, {one.name for one in boards["worker-1"].online()}, key=len)
        await trio.sleep(30)
        (last,) = pointers(sim)
        assert (last.state, last.round, last.rounds, last.workers, last.validators, last.relays) == ("finished", 3, 3, 2, 3, OURS)
        assert {pointer.state for pointer in seen} >= {"running", "finished"}
        assert [pointer.round for pointer in seen] == sorted(pointer.round for pointer in seen)
        assert crowded == set(sim.participants)
        await trio.sleep(STALE_S + PRESENCE_S[1] + 1)
        assert boards["worker-1"].online() == ()
        nursery.cancel_scope.cancel()
    lists = [event for event in sim.relays.events.values() if event.kind in (kinds.RELAY_LIST, kinds.INBOX_RELAYS)]
    assert len(lists) == 2 * len(everyone)
    assert all(read_inboxes_untrusted(event) == OURS for event in lists)
    servers = [read_servers_untrusted(event) for event in sim.relays.events.values() if event.kind == kinds.BLOB_SERVERS]
    assert servers == [(SERVER, *sim.participants["worker-1"].run.manifest.blob_servers)] * len(everyone)  # type: ignore[union-attr]
    handlers = [event for event in sim.relays.events.values() if event.kind == kinds.HANDLER]
    assert [event.pubkey for event in handlers] == [sim.key("coordinator")]


async def test_strangers_are_not_listed_and_an_old_word_does_not_replace_a_new_one(tmp_path: Path, autojump_clock: MockClock) -> None:
    sim = Simulation(PLAN, tmp_path)
    async with sim.running(), trio.open_nursery() as nursery:
        board = await start(nursery, sim.participants["coordinator"])
        await until(lambda: len(sim.participants["coordinator"].run.enrolled) == 5 if sim.participants["coordinator"].run else False)
        run, now = sim.participants["coordinator"].run, sim.clock.now()
        assert run is not None

        def says(doing: str, at: int, signer: object) -> Event:
            return signer.sign(draft_advert(Presence(run.id, "worker", "w", 0, doing), UnixTime(at)))  # type: ignore[attr-defined]

        worker = sim.participants["worker-0"].signer
        for event in (
            says("new", now - 5, worker),
            says("old", now - 9, worker),
            says("a stranger", now, PlainSigner("stranger")),
            worker.sign(Draft(now, kinds.PRESENCE, (("t", "nostrain"), ("d", run.id)), "nonsense")),
        ):
            sim.relays.accept(event)
        await trio.sleep(1)
        heard = {one.pubkey: one.doing for one in board.online()}
        assert heard.pop(worker.pubkey) == "new"
        assert set(heard) <= {sim.key("coordinator")}
        nursery.cancel_scope.cancel()


async def test_a_crowd_of_keys_does_not_outgrow_the_answer_to_an_operator(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(billboard, "known", lambda run, key: True)
    sim = Simulation(PLAN, tmp_path)
    async with sim.running(), trio.open_nursery() as nursery:
        board = await start(nursery, sim.participants["coordinator"])
        await until(lambda: sim.participants["coordinator"].run is not None)
        run, long = sim.participants["coordinator"].run, "\N{GRINNING FACE}" * MAX_WORDS
        assert run is not None
        for number in range(MAX_ONLINE + 20):
            said = Presence(run.id, "worker", long, 0, long)
            sim.relays.accept(PlainSigner(f"{number}").sign(draft_advert(said, UnixTime(sim.clock.now() - number))))
        await trio.sleep(1)
        online = board.online()
        nursery.cancel_scope.cancel()
    assert len(online) == MAX_ONLINE
    assert max(one.seconds for one in online) < MAX_ONLINE + 2
    assert len(msgspec.json.encode(online)) < MAX_LINE // 2


async def test_presence_is_rare_and_not_in_step(tmp_path: Path, autojump_clock: MockClock) -> None:
    sim = Simulation(PLAN, tmp_path)
    times: dict[str, list[int]] = {}
    accept = sim.relays.accept

    def noting(event: Event) -> None:
        if event.kind == kinds.PRESENCE:
            times.setdefault(event.pubkey, []).append(event.created_at)
        accept(event)

    sim.relays.accept = noting  # type: ignore[method-assign]
    async with sim.running(), trio.open_nursery() as nursery:
        for one in sim.participants.values():
            await start(nursery, one)
        await until(lambda: all(one.run is not None and one.run.finished for one in sim.participants.values()))
        nursery.cancel_scope.cancel()
    pauses = [later - sooner for said in times.values() for sooner, later in pairwise(said)]
    assert len(times) == 6
    assert min(pauses) >= PRESENCE_S[0] - 1
    assert len(set(pauses)) > 3


async def test_who_does_not_want_to_be_seen_still_sees_the_others(tmp_path: Path, autojump_clock: MockClock) -> None:
    sim = Simulation(PLAN, tmp_path)
    async with sim.running(), trio.open_nursery() as nursery:
        boards = [await start(nursery, one, present=name != "worker-0") for name, one in sim.participants.items()]
        await until(lambda: all(len(board.online()) == 5 for board in boards))
        assert {one.name for board in boards for one in board.online()} == set(sim.participants) - {"worker-0"}
        nursery.cancel_scope.cancel()


async def test_relays_that_take_no_adverts_are_counted_and_harm_nothing(tmp_path: Path, autojump_clock: MockClock) -> None:
    sim = Simulation(PLAN, tmp_path)
    async with sim.running(), trio.open_nursery() as nursery:
        one = sim.participants["coordinator"]
        await until(lambda: one.runtime is not None)
        assert one.runtime is not None

        async def publish(event: Event) -> None:
            await trio.lowlevel.checkpoint()
            raise Unavailable("no")

        one.runtime.ports.relays.__dict__["publish"] = publish
        nursery.start_soon(Billboard(one.runtime, OURS, random.Random(1)).run)
        await trio.sleep(300)
        assert one.runtime.counters["adverts_not_published"] >= 3
        nursery.cancel_scope.cancel()
