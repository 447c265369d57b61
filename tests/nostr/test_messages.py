"""Relay messages: what is understood, what is refused, and that nothing else than RemoteProtocolError comes out."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nostrain.errors import RemoteProtocolError
from nostrain.nostr import messages
from nostrain.nostr.backoff import Backoff
from nostrain.nostr.messages import Answer, parse_relay_message_untrusted
from nostrain.protocol.event import Filter
from tests.nostr.scripted_relay import note

ID = "ab" * 32


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('["EVENT","s",{"a":1}]', messages.EventMessage("s", b'{"a":1}')),
        ('["EOSE","s"]', messages.EoseMessage("s")),
        (f'["OK","{ID}",true,""]', messages.OkMessage(ID, True, "")),
        (f'["OK","{ID}",false,"invalid: \\n x","more"]', messages.OkMessage(ID, False, "invalid:   x")),
        ('["CLOSED","s","error: y"]', messages.ClosedMessage("s", "error: y")),
        ('["NOTICE","' + "z" * 2000 + '"]', messages.NoticeMessage("z" * 1024)),
        ('["AUTH","c"]', messages.AuthMessage("c")),
    ],
)
def test_understood(text: str, expected: messages.RelayMessage) -> None:
    assert parse_relay_message_untrusted(text) == expected
    assert parse_relay_message_untrusted(text.encode()) == expected


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("", "relay message"),
        ("{}", "Expected `array`"),
        ("[]", "unknown label ''"),
        ("[1]", "Expected `str`"),
        ('["HELLO","x"]', "unknown label 'HELLO'"),
        ('["EVENT","s"]', "EVENT with 1 members"),
        ('["EVENT","",{}]', "subscription id of 0"),
        ('["EOSE","' + "x" * 65 + '"]', "subscription id of 65"),
        ('["OK","ab",true,""]', "not an event id"),
        (f'["OK","{ID}",1,""]', "Expected `bool`"),
        (f'["OK","{ID}",true]', "OK with 2 members"),
        ('["AUTH",""]', "AUTH challenge"),
        ('["AUTH","a\\nb"]', "AUTH challenge"),
        ('["NOTICE","\\ud800"]', "truncated|surrogate"),
        (b'["NOTICE","\xff"]', "utf-8"),
        ('["NOTICE","x"] x', "trailing"),
        ("[" * 100_000, "relay message"),
        ('["EVENT","s",' + "[" * 100_000, "relay message"),
        (" " * (messages.MAX_MESSAGE_BYTES + 1), "at most"),
    ],
)
def test_refused(data: bytes | str, reason: str) -> None:
    with pytest.raises(RemoteProtocolError, match=reason):
        parse_relay_message_untrusted(data)


@given(st.binary(max_size=100) | st.text(max_size=100))
def test_garbage(data: bytes | str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        parse_relay_message_untrusted(data)
    assert str(caught.value).isprintable()


@given(st.sampled_from(["EVENT", "EOSE", "OK", "CLOSED", "NOTICE", "AUTH"]), st.data())
def test_mutated_messages_are_read_or_refused(label: str, data: st.DataObject) -> None:
    members = {"EVENT": ["s", {"id": ID}], "EOSE": ["s"], "OK": [ID, True, ""], "CLOSED": ["s", ""], "NOTICE": ["x"], "AUTH": ["c"]}
    raw = bytearray(json.dumps([label, *members[label]]).encode())
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    try:
        message = parse_relay_message_untrusted(bytes(raw))
    except RemoteProtocolError:
        return
    assert isinstance(message, messages.RelayMessage)


@pytest.mark.parametrize("head", [b"", b"[]", b"{}", b'{"id":"ab","created_at":1}', b'{"id":"%s","created_at":-1}' % ID.encode(), b"\xff"])
def test_head_refused(head: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        messages.parse_head_untrusted(head)


@pytest.mark.parametrize(
    ("accepted", "reason", "answer"),
    [
        (True, "", Answer.ACCEPTED),
        (True, "duplicate: have it", Answer.ACCEPTED),
        (False, "duplicate: have it", Answer.ACCEPTED),
        (False, "rate-limited: slow down", Answer.RETRY),
        (False, "error: disk", Answer.ERROR),
        (False, "auth-required: who?", Answer.AUTHENTICATE),
        (False, "ERROR: auth-required: as strfry closes a subscription", Answer.AUTHENTICATE),
        (False, "ERROR: bad req: as well", Answer.REFUSED),
        *((False, f"{prefix}: no", Answer.REFUSED) for prefix in ("invalid", "blocked", "pow", "restricted", "mute")),
        (False, "", Answer.REFUSED),
    ],
)
def test_judge(accepted: bool, reason: str, answer: Answer) -> None:
    assert messages.judge(accepted, reason) is answer


def test_client_messages() -> None:
    event = note("é")
    spoken: list[Any] = [messages.event_message(event), messages.auth_message(event)]
    assert [json.loads(text)[0] for text in spoken] == ["EVENT", "AUTH"]
    assert json.loads(spoken[0])[1]["content"] == "é"
    assert json.loads(messages.req_message("s", [Filter(kinds=(1,)), Filter(limit=2)])) == ["REQ", "s", {"kinds": [1]}, {"limit": 2}]
    assert json.loads(messages.close_message("s")) == ["CLOSE", "s"]


def test_backoff_doubles_with_jitter_up_to_its_limit_and_starts_over() -> None:
    backoff = Backoff(random.Random(1), 0.5, 8)
    delays = [backoff.next() for _ in range(8)]
    for delay, step in zip(delays, [0.5, 1, 2, 4, 8, 8, 8, 8], strict=True):
        assert step / 2 <= delay <= step
    assert len(set(delays)) == 8
    backoff.lasted(1)
    assert backoff.next() >= 4
    backoff.lasted(9)
    assert backoff.next() <= 0.5
