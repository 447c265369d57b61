"""The write policy for strfry, over strfry's protocol: one JSON line in, one out, as the command that strfry.conf names."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nostrain.protocol.limits import MAX_EVENT_BYTES
from nostrain.wire.kinds import GIFT_WRAP, KINDS

FOLDER = Path(__file__).parents[2] / "relay-configs"
NOW = 1_800_000_000
ALICE, BOB = "a" * 64, "b" * 64


def command() -> list[str]:
    """The plugin as configured, where it lies here."""
    found = re.search(r'^\s*plugin = "(.*)"$', (FOLDER / "strfry.conf").read_text(), re.MULTILINE)
    assert found is not None
    program, *options = shlex.split(found[1])
    return [sys.executable, str(FOLDER / Path(program).name), *options]


def request(at: int, kind: int = 8650, **changes: Any) -> dict[str, Any]:
    """What strfry asks; members of the request, and of its event, may be changed."""
    event = {"id": f"{at:064x}", "pubkey": ALICE, "created_at": NOW, "kind": kind, "tags": [], "content": "", "sig": "0" * 128}
    outer = {"type": "new", "event": event, "receivedAt": NOW, "sourceType": "IP4", "sourceInfo": "192.0.2.1"}
    for name, value in changes.items():
        (event if name in event else outer)[name] = value
    return outer


def ask(requests: list[dict[str, Any]], *options: str) -> list[str | None]:
    """The prefix of each refusal; None: accepted."""
    lines = "".join(json.dumps(asked) + "\n" for asked in requests)
    ran = subprocess.run([*command(), *options], input=lines, capture_output=True, text=True, check=True)
    answers = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [answer["id"] for answer in answers] == [asked["event"]["id"] for asked in requests]
    assert all(len(line) < 8_192 for line in ran.stdout.splitlines())  # the longest that strfry reads
    assert all(answer["action"] == ("reject" if "msg" in answer else "accept") for answer in answers)
    return [answer["msg"].partition(":")[0] if "msg" in answer else None for answer in answers]


def test_our_kinds_and_no_others() -> None:
    others = [0, 1, 5, 62, 8649, 8672, 65_535]
    assert ask([request(at, kind) for at, kind in enumerate(sorted(KINDS))]) == [None] * len(KINDS)
    assert ask([request(at, kind) for at, kind in enumerate(others)]) == ["blocked"] * len(others)


def test_sizes() -> None:
    large = request(1, content="é" * (MAX_EVENT_BYTES // 2))
    assert ask([large, request(2, content="é" * 33_000)]) == [None, "invalid"]
    assert ask([large], "--max-bytes", "1000") == ["invalid"]


def test_expired_events() -> None:
    times = [str(NOW - 1), str(NOW), str(NOW + 1), "never"]
    asked = [request(at, tags=[["expiration", time], ["expiration"]]) for at, time in enumerate(times)]
    assert ask(asked) == ["invalid", "invalid", None, None]


def test_a_rate_for_each_key_that_recovers() -> None:
    limit = ("--per-minute", "2")
    burst = [request(at) for at in range(3)]
    assert ask([*burst, request(4, pubkey=BOB)], *limit) == [None, None, "rate-limited", None]
    assert ask([*burst, request(4, receivedAt=NOW + 30), request(5, receivedAt=NOW + 30)], *limit)[3:] == [None, "rate-limited"]
    assert ask([request(at, sourceType="Sync", sourceInfo="wss://other") for at in range(5)], *limit) == [None] * 5


def test_gift_wraps_are_counted_by_address() -> None:
    wraps = [request(at, GIFT_WRAP, pubkey=f"{at:064x}") for at in range(3)]
    assert ask([*wraps, request(4, GIFT_WRAP, sourceInfo="192.0.2.2")], "--per-minute", "2") == [None, None, "rate-limited", None]


def work(bits: int, target: str | None) -> dict[str, Any]:
    tags = [["nonce", "1", target]] if target is not None else []
    return request(0, id=f"{1 << (255 - bits):064x}", tags=tags)


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        (work(20, "20"), None),
        (work(24, "20"), None),
        (work(19, "20"), "pow"),
        (work(30, "10"), "pow"),
        (work(30, None), "pow"),
        (work(30, "x"), "pow"),
        (request(1, GIFT_WRAP, id="f" * 64), None),
        (request(1, id="f" * 64, sourceType="Import"), None),
    ],
)
def test_strangers_work(asked: dict[str, Any], answer: str | None) -> None:
    assert ask([asked], "--pow", "20") == [answer]


def test_known_keys_need_not(tmp_path: Path) -> None:
    known = tmp_path / "known"
    known.write_text(f"{ALICE}\n")
    asked = [request(1, id="f" * 64), request(2, id="e" * 64, pubkey=BOB)]
    assert ask(asked, "--pow", "20", "--known", str(known)) == [None, "pow"]


def test_the_file_of_known_keys_is_read_again(tmp_path: Path) -> None:
    known = tmp_path / "known"
    known.write_text("")
    with subprocess.Popen(
        [*command(), "--pow", "20", "--known", str(known)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as policy:
        assert policy.stdin is not None
        assert policy.stdout is not None
        for expected in ("reject", "accept"):
            print(json.dumps(request(1, id="f" * 64)), file=policy.stdin, flush=True)
            assert json.loads(policy.stdout.readline())["action"] == expected
            known.write_text(f"{BOB}\n{ALICE}\n")
