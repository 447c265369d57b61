"""Runs found from relays alone: what one relay shows, forges or floods hides nothing of what another has."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import trio
from click.testing import CliRunner
from trio.testing import MockClock

from nostrain.ctl import runs
from nostrain.ctl.main import main
from nostrain.devnet import finder
from nostrain.devnet.finder import MAX_OF_ONE, FoundRun, find_runs, look_at
from nostrain.protocol.discovery import Pointer, Presence, RunAddress
from nostrain.protocol.event import Draft, Event
from nostrain.protocol.messages import Enrolment, Message
from nostrain.protocol.tensors import parameter_count
from nostrain.units import UnixTime
from nostrain.wire import kinds
from nostrain.wire.discovery import draft_advert
from nostrain.wire.messages import draft, read_message_untrusted
from nostrain.wire.nip19_run import parse_run_untrusted
from tests.docs.examples import COORDINATOR, START, VALIDATORS, WORKERS, Examples
from tests.nostr.scripted_relay import PlainSigner, ScriptedRelay, Wire, dial

EXAMPLES = Examples()
RUN = EXAMPLES.run
NOW = UnixTime(START + 1_000)
POINTER = Pointer(RUN, "example", 8, 1, "running", 3, 3, ("wss://relay.example",))


def pointer(at: int = START + 90, body: Pointer = POINTER) -> Event:
    return COORDINATOR.signer.sign(draft_advert(body, UnixTime(at)))


def manifest(name: str, signer: PlainSigner, at: int = START) -> Event:
    return signer.sign(draft(msgspec.structs.replace(EXAMPLES.manifest, name=name), UnixTime(at)))


async def test_a_run_is_found_with_what_matters_to_who_might_join(autojump_clock: MockClock) -> None:
    relay = ScriptedRelay(*EXAMPLES.events.values(), pointer())
    (found,) = await find_runs(["ws://a"], NOW, connect=dial(a=relay))
    assert (found.id, found.coordinator, found.round, found.active) == (RUN, COORDINATOR.pubkey, 1, START + 90)
    assert found.pointer == POINTER
    assert found.found_on == ("ws://a",)


async def test_without_a_pointer_the_rounds_tell(autojump_clock: MockClock) -> None:
    relay = ScriptedRelay(*EXAMPLES.events.values())
    (found,) = await find_runs(["ws://a"], NOW, connect=dial(a=relay))
    assert (found.pointer, found.round) == (None, 1)
    assert found.active == EXAMPLES.events["result"].created_at


async def test_only_the_coordinator_says_where_its_run_stands(autojump_clock: MockClock) -> None:
    liar = PlainSigner("liar")
    claims = [liar.sign(draft_advert(msgspec.structs.replace(POINTER, round=8, state="finished"), UnixTime(START + 500)))]
    claims.append(liar.sign(draft(msgspec.structs.replace(EXAMPLES.announcement, round=7), UnixTime(START + 600))))
    relay = ScriptedRelay(*EXAMPLES.events.values(), pointer(), *claims)
    (found,) = await find_runs(["ws://a"], NOW, connect=dial(a=relay))
    assert (found.pointer, found.round, found.active) == (POINTER, 1, START + 90)


async def test_a_flood_on_one_relay_hides_nothing_of_another(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finder, "MAX_READ", 60)
    monkeypatch.setattr(finder, "MAX_RUNS", 30)
    flood = [manifest(f"spam {number}", PlainSigner(f"{number}"), START + 100 + number) for number in range(80)]
    honest, hostile = ScriptedRelay(*EXAMPLES.events.values()), ScriptedRelay(*flood)
    found = await find_runs(["ws://hostile", "ws://honest"], NOW, connect=dial(hostile=hostile, honest=honest))
    assert RUN in {run.id for run in found}
    assert len(found) == 31


async def test_what_a_relay_floods_is_read_a_few_times_not_once_for_every_run(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading verifies signatures within: a hundred runs times thousands of events would be minutes."""
    reads: Counter[str] = Counter()

    def counted(event: Event) -> Message:
        reads[event.id] += 1
        return read_message_untrusted(event)

    monkeypatch.setattr(finder, "read_message_untrusted", counted)
    relay = ScriptedRelay(*EXAMPLES.events.values(), *(manifest(f"{at}", PlainSigner(f"{at}"), START + at) for at in range(20)))
    assert len(await find_runs(["ws://a"], NOW, connect=dial(a=relay))) == 21
    assert max(reads.values()) <= 4


async def test_a_flood_hides_no_run_that_is_looked_at_nor_where_it_stands(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(ScriptedRelay):
        @asynccontextmanager
        async def connect(self, url: str) -> AsyncIterator[Wire]:
            await trio.sleep(1)
            async with super().connect(url) as wire:
                yield wire

    monkeypatch.setattr(finder, "MAX_READ", 60)
    enrolment = next(event for event in EXAMPLES.events.values() if event.kind == kinds.ENROLMENT)
    flood = [PlainSigner(f"{at}").sign(Draft(NOW, enrolment.kind, enrolment.tags, "{}")) for at in range(80)]
    honest = Slow(*EXAMPLES.events.values(), pointer())
    urls = ["ws://hostile", "ws://honest"]
    found = await look_at(urls, RunAddress(RUN), 1, connect=dial(hostile=ScriptedRelay(*flood), honest=honest))
    assert found is not None
    assert (found.pointer, found.round) == (POINTER, 1)


async def test_relays_of_an_address_are_dialled_as_strangers(autojump_clock: MockClock) -> None:
    relay, address = ScriptedRelay(*EXAMPLES.events.values()), RunAddress(RUN, relays=("ws://theirs",))
    found = await look_at((), address, 1, connect=dial(), strangers=dial(theirs=relay))
    assert found is not None
    assert found.found_on == ("ws://theirs",)


async def test_one_coordinator_shows_a_few_runs_and_those_of_the_future_come_last(autojump_clock: MockClock) -> None:
    eager = [manifest(f"{number}", PlainSigner("eager"), START - number) for number in range(MAX_OF_ONE + 5)]
    relay = ScriptedRelay(*EXAMPLES.events.values(), *eager, manifest("tomorrow", PlainSigner("t"), NOW + 86_400))
    found = await find_runs(["ws://a"], NOW, connect=dial(a=relay))
    assert [run.manifest.name for run in found] == ["example", *(str(number) for number in range(MAX_OF_ONE)), "tomorrow"]


async def test_forged_and_absurd_manifests_are_not_shown(autojump_clock: MockClock) -> None:
    class Forges(ScriptedRelay):
        def on_req(self, wire, name, wanted) -> None:  # type: ignore[no-untyped-def]
            wire.say("EVENT", name, msgspec.to_builtins(EXAMPLES.events["manifest"]) | {"content": "{}"})
            super().on_req(wire, name, wanted)

    absurd = PlainSigner("absurd").sign(draft(msgspec.structs.replace(EXAMPLES.manifest, threshold=0), UnixTime(START)))
    relay = Forges(*EXAMPLES.events.values(), absurd)
    found = await find_runs(["ws://a"], NOW, connect=dial(a=relay))
    assert [run.id for run in found] == [RUN]


async def test_a_relay_that_is_away_and_one_that_never_ends_cost_a_bounded_time(autojump_clock: MockClock) -> None:
    away, silent = ScriptedRelay(), ScriptedRelay()
    away.down = silent.silent = True
    began = trio.current_time()
    assert await find_runs(["ws://away", "ws://silent"], NOW, connect=dial(away=away, silent=silent)) == []
    assert trio.current_time() - began <= 2 * finder.LONGEST_S


async def test_one_run_with_its_people_and_who_is_there(autojump_clock: MockClock) -> None:
    enrolment = read_message_untrusted(EXAMPLES.events["enrolment worker 0"]).body
    assert isinstance(enrolment, Enrolment)
    again = [WORKERS[0].says(msgspec.structs.replace(enrolment, tokens_per_s=speed), UnixTime(NOW + speed)) for speed in (2_000, 7_000)]
    relay = ScriptedRelay(*EXAMPLES.events.values(), *again, pointer())
    validator = VALIDATORS[0]
    said = validator.signer.sign(draft_advert(Presence(RUN, "validator", validator.name, 1, "evaluating"), NOW))
    stranger = PlainSigner("x").sign(draft_advert(Presence(RUN, "worker", "x", 1), NOW))

    async def later() -> None:
        await trio.sleep(10)
        relay.broadcast(said)
        relay.broadcast(stranger)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(later)
        found = await look_at(["ws://a"], RunAddress(RUN), 60, connect=dial(a=relay))
    assert found is not None
    assert [one.name for one in found.online] == [validator.name]
    assert (len(found.workers), len(found.validators), found.tokens_per_s) == (len(WORKERS), len(VALIDATORS), 7_000)
    assert await look_at(["ws://a"], RunAddress(EXAMPLES.events["result"].id), 1, connect=dial(a=relay)) is None


@pytest.fixture
def found() -> FoundRun:
    body = EXAMPLES.manifest
    return FoundRun(
        id=RUN, coordinator=COORDINATOR.pubkey, manifest=body, created_at=START, active=START, round=1, pointer=POINTER,
        workers=("w",), validators=("v\x1b[2J",), found_on=("ws://a",), online=(Presence(RUN, "worker", "w", 1, "training"),),
    )  # fmt: skip


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch, found: FoundRun) -> list[object]:
    asked: list[object] = []

    async def find(relays: object, now: object) -> list[FoundRun]:
        asked.append(relays)
        return [found]

    async def look(relays: object, address: RunAddress, listen_s: float) -> FoundRun | None:
        asked.append((relays, address.relays))
        return found if address.run == RUN else None

    monkeypatch.setattr(finder, "find_runs", find)
    monkeypatch.setattr(finder, "look_at", look)
    return asked


def test_the_list_in_a_terminal(answering: list[object]) -> None:
    ran = CliRunner().invoke(main, ["run", "list", "--relay", "wss://A/", "--relay", "wss://a"])
    assert ran.exit_code == 0
    assert answering == [("wss://a",)]
    for said in (
        "example",
        RUN,
        "parameters",
        "memory: a worker needs 5",
        "pays 8,000 sat a round to at most 8 workers, ticket 50 sat, on regtest",
        "round 1 of 8",
        "npub1",
    ):
        assert said in ran.output


def test_the_list_and_a_run_for_programs(answering: list[object]) -> None:
    (shown,) = msgspec.json.decode(CliRunner().invoke(main, ["run", "list", "--relay", "wss://a", "--json"]).output)
    assert shown["parameters"] == parameter_count(EXAMPLES.manifest.model) > 50_000
    address = parse_run_untrusted(shown["nevent"])
    assert address == RunAddress(RUN, COORDINATOR.pubkey, ("wss://relay.example",))
    one = msgspec.json.decode(CliRunner().invoke(main, ["run", "show", shown["nevent"], "--json"]).output)
    assert one == shown
    assert answering[-1] == ((), ("wss://relay.example",))


def test_a_run_in_a_terminal_commands_nothing(answering: list[object]) -> None:
    ran = CliRunner().invoke(main, ["run", "show", RUN, "--relay", "wss://a"])
    assert ran.exit_code == 0
    assert "\x1b" not in ran.output
    for said in (
        "2 of at least 3 validators",
        "w (training)",
        "1 enrolled: v?[2J",
        "nevent1",
        "to train one window",
        "to evaluate one window",
    ):
        assert said in ran.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "show", "xyz", "--relay", "wss://a"), "neither 64 hex digits"),
        (("run", "show", "cd" * 32, "--relay", "wss://a"), "no relay that was asked has the run"),
        (("run", "list", "--relay", "http://a"), "Write wss://host"),
        (("run", "list", "--control", "nowhere.sock"), "no daemon answers"),
    ],
)
def test_what_cannot_be_asked_is_one_line(answering: list[object], tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    ran = CliRunner().invoke(main, arguments)
    assert ran.exit_code == 1
    assert said in ran.output
    assert ran.output.count("\n") == 1


@pytest.mark.parametrize(("count", "text"), [(999, "999"), (126_400, "126K"), (1_000_000, "1M"), (7_240_000_000, "7.24B")])
def test_sizes_of_models(count: int, text: str) -> None:
    assert runs.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s ago"), (59, "59 s ago"), (3_599, "59 min ago"), (200_000, "2 d ago"), (-5, "in the future, by its coordinator's clock")],
)
def test_how_long_ago(seconds: int, text: str) -> None:
    assert runs.ago(seconds) == text


def test_what_an_epoch_pays() -> None:
    settlement = msgspec.structs.replace(EXAMPLES.manifest.settlement, epoch_rounds=4, fee_msat=0)
    assert "8,000 sat every 4 rounds" in runs.pay(msgspec.structs.replace(EXAMPLES.manifest, settlement=settlement))
    assert "no fee" in runs.pay(msgspec.structs.replace(EXAMPLES.manifest, settlement=settlement))
