"""Somebody who only reads the round of the examples, and what one hostile participant may say among its messages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from nostrain.core.identity import Identity
from nostrain.core.inputs import Boot, Received
from nostrain.core.node import step
from nostrain.core.rows import NodeState, Waiting
from nostrain.core.transaction import Note
from nostrain.protocol import messages as m
from nostrain.protocol.event import Event
from nostrain.units import Pubkey, UnixTime
from tests.core.reading import Readable
from tests.docs.examples import START, Party

NOW = UnixTime(START + 100)


class Onlooker(Readable):
    """A node that computes nothing; without roles unless it is given one."""

    def __init__(self, pubkey: str = "f" * 64, *roles: Literal["coordinator", "worker", "validator"]) -> None:
        identity = Identity(pubkey=Pubkey(pubkey), name="onlooker", roles=roles, work_dir="/nowhere")
        self.state = step(NodeState(), Boot(identity), START).state
        self.notes: list[Note] = []

    def hear(self, messages: Iterable[m.Message]) -> Onlooker:
        for message in messages:
            taken = step(self.state, Received(message), NOW)
            self.state = taken.state
            self.notes += taken.notes
        return self

    @property
    def waiting(self) -> list[Waiting]:
        return [row for row in self.state.rows.values() if isinstance(row, Waiting)]

    def refusals(self) -> str:
        return "\n".join(note.text for note in self.notes if note.counter == "messages_refused")


def event(party: Party, body: m.Body, after: int = 50) -> Event:
    return party.says(body, START + after)
