"""What strangers and participants send in masses, or out of the blue: it pushes nobody out, and crashes nobody."""

from __future__ import annotations

import msgspec
import pytest

from nostrain.core import waiting
from nostrain.protocol import messages as m
from nostrain.units import EventId, Pubkey
from nostrain.wire.messages import read_message_untrusted
from tests.core.actors import EXAMPLES, MESSAGES, ROUND
from tests.core.onlookers import Onlooker, event
from tests.docs.examples import COORDINATOR, START, WORKERS, Party

STRANGER = Party("stranger")


def junk(author: Pubkey, count: int) -> list[m.Message]:
    """Commitments to rounds that never were."""
    body = MESSAGES["commitment 0"].body
    ids = [EventId(f"{author[-8:]}{n:056x}") for n in range(count)]
    return [m.Message(one, author, START, msgspec.structs.replace(body, announcement=one)) for one in ids]


def test_a_flood_by_a_stranger_pushes_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "MAX_WAITING", 64)
    monkeypatch.setattr(waiting, "MAX_WAITING_OF_ONE", 32)
    opening, rest = ROUND[:7], ROUND[8:]
    node = Onlooker().hear([*opening, *rest, *junk(STRANGER.pubkey, 200)])
    assert len(node.waiting) <= 64
    assert sum(row.message.author == STRANGER.pubkey for row in node.waiting) <= 32
    node.hear([MESSAGES["announcement"]])
    assert (node.run.round, node.run.halted) == (1, None)


def test_a_flood_by_many_strangers_pushes_no_participant_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "MAX_WAITING", 64)
    monkeypatch.setattr(waiting, "MAX_WAITING_OF_ONE", 32)
    crowd = [message for n in range(150) for message in junk(Pubkey(f"{n:064x}"), 1)]
    node = Onlooker().hear([*ROUND[:7], *ROUND[8:], *crowd])
    assert len(node.waiting) == 64
    node.hear([MESSAGES["announcement"]])
    assert (node.run.round, node.run.halted) == (1, None)


def test_a_flood_by_a_participant_is_its_own_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "MAX_WAITING_OF_ONE", 32)
    node = Onlooker().hear([*ROUND[:7], *ROUND[8:], *junk(WORKERS[0].pubkey, 100)])
    others = {message.id for message in ROUND[8:] if message.author != WORKERS[0].pubkey}
    assert others <= {row.message.id for row in node.waiting}
    assert sum(row.message.author == WORKERS[0].pubkey for row in node.waiting) <= 32


@pytest.mark.parametrize("label", EXAMPLES.private)
@pytest.mark.parametrize("heard", [0, 1, 8, len(ROUND)])
def test_private_messages_out_of_the_blue_crash_nobody(label: str, heard: int) -> None:
    for me in (Onlooker(), Onlooker(WORKERS[0].pubkey, "worker"), Onlooker(COORDINATOR.pubkey)):
        me.hear(ROUND[:heard])
        for author in (STRANGER, WORKERS[1], WORKERS[0], COORDINATOR):
            me.hear([read_message_untrusted(event(author, MESSAGES[label].body))])
        assert [note.text for note in me.notes if note.level == "fault"] == []


def test_a_stranger_says_everything_and_nothing_happens() -> None:
    others = [m.Message(EventId(f"{n:064x}"), STRANGER.pubkey, START, message.body) for n, message in enumerate(ROUND[1:])]
    node = Onlooker().hear([*ROUND[:1], *others, *ROUND[1:], *others])
    assert (node.run.round, node.run.halted) == (1, None)
    assert STRANGER.pubkey in node.run.enrolled
    assert STRANGER.pubkey not in {author for author, _, _ in node.round.commitments.values()}
