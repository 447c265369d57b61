"""The shipped relay configurations say what our traffic needs, and name exactly our kinds."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from nostrain.devnet import relay
from nostrain.nostr.watch import Settings
from nostrain.protocol.limits import MAX_EVENT_BYTES
from nostrain.wire.kinds import GIFT_WRAP, KINDS

FOLDER = Path(__file__).parents[2] / "relay-configs"
WRAP_BYTES = 24 * 1024
THREE_DAYS = 3 * 86_400

Value = str | int | bool
Conf = dict[str, Value]


def parse_strfry(text: str) -> Conf:
    """strfry's configuration as dotted keys: `name {` … `}` and `name = value`, with comments. Anything else is an error."""
    values: Conf = {}
    path: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if opened := re.fullmatch(r"(\w+) \{", line):
            path.append(opened[1])
        elif line == "}":
            path.pop()
        elif setting := re.fullmatch(r'(\w+) = (?:"([^"]*)"|(\d+)|(true|false))', line):
            key = ".".join([*path, setting[1]])
            assert key not in values, f"line {number}: {key} is set twice"
            values[key] = setting[2] if setting[2] is not None else int(setting[3]) if setting[3] else setting[4] == "true"
        else:
            raise AssertionError(f"line {number} is not strfry's syntax: {line}")
    assert not path
    return values


@pytest.fixture(scope="module")
def strfry() -> Conf:
    return parse_strfry((FOLDER / "strfry.conf").read_text())


@pytest.fixture(scope="module")
def rs_relay() -> dict[str, dict[str, object]]:
    return tomllib.loads((FOLDER / "nostr-rs-relay.toml").read_text())


def number(value: object) -> int:
    assert isinstance(value, int)
    return value


def test_strfry_accepts_exactly_our_kinds(strfry: Conf) -> None:
    program, option, kinds, *others = str(strfry["relay.writePolicy.plugin"]).split()
    assert program.rpartition("/")[2] == "nostrain-policy.py"
    assert (FOLDER / "nostrain-policy.py").stat().st_mode & 0o111
    assert (option, others) == ("--kinds", [])
    assert [int(kind) for kind in kinds.split(",")] == sorted(KINDS)


def test_khatru_is_given_exactly_our_kinds_sorted() -> None:
    found = re.search(r"RestrictToSpecifiedKinds\(\n\s*false, //[^\n]*\n([\d,\s]+)\)", (FOLDER / "README.md").read_text())
    assert found is not None
    assert [int(kind) for kind in re.findall(r"\d+", found[1])] == sorted(KINDS)


def test_the_embedded_relay_answers_whole_pages_and_bursts() -> None:
    assert Settings().page_size <= relay.FILTER_LIMIT
    assert relay.NO_LIMIT >= 60 * 700


def test_nostr_rs_relay_accepts_exactly_our_kinds(rs_relay: dict[str, dict[str, object]]) -> None:
    assert rs_relay["limits"]["event_kind_allowlist"] == sorted(KINDS)


def test_deletion_requests_are_nobodys_kinds() -> None:
    assert not {5, 62} & set(KINDS)


def test_strfry_takes_our_sizes_dates_and_filters(strfry: Conf) -> None:
    assert number(strfry["events.maxEventSize"]) >= WRAP_BYTES > MAX_EVENT_BYTES
    assert number(strfry["relay.maxWebsocketPayloadSize"]) > number(strfry["events.maxEventSize"])
    assert 60 <= number(strfry["events.rejectEventsNewerThanSeconds"]) <= 900
    assert number(strfry["events.rejectEventsOlderThanSeconds"]) > THREE_DAYS
    assert number(strfry["relay.maxTagsPerFilter"]) >= 2
    assert strfry["relay.filterValidation.enabled"] is False


def test_strfry_shows_gift_wraps_to_those_who_can_authenticate(strfry: Conf) -> None:
    restricted = str(strfry["relay.auth.restrictedReadKinds"]).replace(",", " ").split()
    assert str(GIFT_WRAP) not in restricted or strfry["relay.auth.serviceUrl"]


def test_nostr_rs_relay_takes_our_sizes_and_dates(rs_relay: dict[str, dict[str, object]]) -> None:
    limits = rs_relay["limits"]
    assert number(limits["max_event_bytes"]) >= WRAP_BYTES
    assert number(limits["max_ws_message_bytes"]) > number(limits["max_event_bytes"])
    assert number(limits["max_ws_frame_bytes"]) > number(limits["max_event_bytes"])
    assert 60 <= number(rs_relay["options"]["reject_future_seconds"]) <= 900
    assert limits["limit_scrapers"] is False


def test_the_parser_here_would_notice_a_broken_file() -> None:
    for broken in ("a = b", "a {\n a = 1", 'a = "x"\na = "y"'):
        with pytest.raises(AssertionError):
            parse_strfry(broken)
