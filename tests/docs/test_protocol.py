"""docs/protocol.md against the code: its examples are real, current, complete, and make up a round that a node follows to its end."""

from __future__ import annotations

import json
import re

import pytest

from nostrain.core.effects import CheckLocks, Ok
from nostrain.core.identity import Identity
from nostrain.core.inputs import Boot, Received
from nostrain.core.node import step
from nostrain.core.rows import NodeState, Run
from nostrain.core.transaction import Note
from nostrain.daemon.runners import locks
from nostrain.protocol import messages as m
from nostrain.protocol.event import Event
from nostrain.units import Pubkey, UnixTime
from nostrain.wire import kinds
from nostrain.wire.discovery import read_advert_untrusted, read_inboxes_untrusted, read_servers_untrusted
from nostrain.wire.event import parse_event_untrusted
from nostrain.wire.messages import read_message_untrusted
from tests.docs.examples import RELAYS, SERVERS, START, Examples, filled
from tests.docs.page import PAGE, SHOWN

TEXT = PAGE.read_text()
EVENTS = re.findall(r"```json event\n(.*?)\n```", TEXT, re.DOTALL)
CONTENTS = re.findall(r"```json content\n(.*?)\n```", TEXT, re.DOTALL)
PRIVATE = {kinds.OFFER, kinds.OPENING, kinds.INVOICES}
EXAMPLES = Examples()


@pytest.mark.parametrize("text", EVENTS, ids=range(len(EVENTS)))
def test_an_example_is_a_real_event(text: str) -> None:
    event = parse_event_untrusted(text)
    if event.kind in (kinds.POINTER, kinds.PRESENCE):
        assert read_advert_untrusted(event).run == EXAMPLES.run
    elif event.kind in (kinds.RELAY_LIST, kinds.INBOX_RELAYS):
        assert read_inboxes_untrusted(event) == RELAYS
    elif event.kind == kinds.BLOB_SERVERS:
        assert read_servers_untrusted(event) == SERVERS
    elif event.kind != kinds.HANDLER:  # which we write, and never read
        message = read_message_untrusted(event)
        assert (message.id, message.author) == (event.id, event.pubkey)


def test_every_kind_that_we_speak_has_an_example() -> None:
    assert {parse_event_untrusted(text).kind for text in EVENTS} == set(kinds.PUBLIC) | PRIVATE | set(kinds.ADVERTS)
    assert len(EVENTS) == len(SHOWN)


def test_every_kind_and_its_name_is_on_the_page() -> None:
    missing = [(kind, name) for kind, name in kinds.KINDS.items() if f"| {kind} | {name} |" not in TEXT]
    assert missing == []


def test_the_readable_content_is_that_of_the_event() -> None:
    contents = [content for content in (parse_event_untrusted(text).content for text in EVENTS) if content]
    assert [json.loads(content) for content in contents] == [json.loads(text) for text in CONTENTS]


def test_the_page_is_current() -> None:
    assert filled(TEXT) == TEXT, "run: python -m tests.docs.examples"


def follow(events: list[Event]) -> tuple[Run, list[Note]]:
    """The run as an onlooker sees it after `events`, and what it had to say about them."""
    onlooker = Identity(pubkey=Pubkey("f" * 64), name="onlooker", roles=(), work_dir="/nowhere")
    state = step(NodeState(), Boot(onlooker), START).state
    notes: list[Note] = []
    for event in events:
        taken = step(state, Received(read_message_untrusted(event)), UnixTime(START + 100))
        state, notes = taken.state, [*notes, *taken.notes]
    run = state.rows["run"]
    assert isinstance(run, Run)
    return run, notes


def test_the_examples_are_one_round_that_closes() -> None:
    run, notes = follow(list(EXAMPLES.events.values()))
    assert (run.round, run.halted) == (1, None)
    assert [note.text for note in notes if note.level != "info"] == []


def test_the_round_closes_in_whatever_order_its_events_arrive() -> None:
    first, *others = EXAMPLES.events.values()
    run, _ = follow([first, *reversed(others)])
    assert (run.round, run.halted) == (1, None)


def test_the_openings_stand_up_to_the_payee() -> None:
    offer = read_message_untrusted(EXAMPLES.private["offer"]).body
    opened = read_message_untrusted(EXAMPLES.private["openings"]).body
    assert isinstance(offer, m.Offer)
    assert isinstance(opened, m.Openings)
    check = CheckLocks("payee", "check", EXAMPLES.terms, offer.instances, EXAMPLES.chosen, opened.seeds, opened.locks)
    assert locks.run(check) == Ok()
