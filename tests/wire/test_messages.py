"""Message bodies on the wire: whatever cannot be one ends in one RemoteProtocolError of one line."""

from __future__ import annotations

import json

import msgspec
import pytest

from nostrain.errors import LocalProtocolError, RemoteProtocolError
from nostrain.protocol import messages as m
from nostrain.protocol.limits import MAX_BLOB_BYTES, MAX_EVENT_BYTES, MAX_URL, MAX_URLS
from nostrain.protocol.manifest import RunManifest
from nostrain.wire import kinds
from nostrain.wire.messages import KIND_OF, draft, read_message_untrusted
from tests.docs.examples import START
from tests.wire.changed import EVERYTHING, ID, refused, resigned, with_content


@pytest.mark.parametrize("version", [0, 2, -1, 2**63, 2**80])
def test_unknown_versions_are_refused(version: int) -> None:
    refused(with_content("receipt", v=version), "unknown version|out of range")


@pytest.mark.parametrize("version", [None, True, "1", 1.5, [1]])
def test_what_is_no_version_is_refused(version: object) -> None:
    refused(with_content("receipt", v=version), "Expected `int`")


def test_a_missing_version_is_refused() -> None:
    event = EVERYTHING["receipt"]
    content = {name: value for name, value in json.loads(event.content).items() if name != "v"}
    refused(resigned(event, content=json.dumps(content)), "missing required field `v`")


@pytest.mark.parametrize("kind", [*sorted(set(kinds.KINDS) - set(KIND_OF.values())), 0, 1, 5, 62, 65535])
def test_kinds_that_we_do_not_read_are_refused(kind: int) -> None:
    refused(resigned(EVERYTHING["receipt"], kind=kind), "not a kind that we read")


def test_a_body_under_another_kind_is_refused() -> None:
    for label, event in EVERYTHING.items():
        for kind in sorted(set(KIND_OF.values()) - {event.kind}):
            with pytest.raises(RemoteProtocolError, match=r"content: (Invalid value|Object missing)"):
                read_message_untrusted(resigned(event, kind=kind))
        assert read_message_untrusted(event).id == event.id, label


@pytest.mark.parametrize(
    ("label", "field", "value", "reason"),
    [
        ("receipt", "announcement", "AB" * 32, "announcement is not 32 bytes of lowercase hex"),
        ("receipt", "announcement", "ab" * 31, "announcement is not 32 bytes"),
        ("receipt", "announcement", "ab" * 32 + "\n", "announcement is not 32 bytes"),
        ("receipt", "run", "", "run is not 32 bytes"),
        ("receipt", "commitments", ["zz" * 32], r"commitments\[0\] is not 32 bytes"),
        ("receipt", "commitments", [ID] * 400, "characters of content"),
        ("receipt", "round", 2**62, "round does not fit into 63 bits"),
        ("receipt", "round", 10**400, "round does not fit|out of range"),
        ("receipt", "round", 1.5, "Expected `int`"),
        ("receipt", "round", "1", "Expected `int`"),
        ("receipt", "commitments", {}, "Expected `array`"),
        ("result", "accepted", None, "Expected `array`"),
        ("confirmation 0", "validation_nanonats", 2**62, "validation_nanonats does not fit"),
        ("offer", "amounts_msat", [-1, 1, 1, 1], r"amounts_msat\[0\] is -1"),
        ("offer", "instances", [["x"]], r"instances\[0\]\[0\] is not 32 bytes"),
        ("openings", "locks", [{"payment_hash": "x", "ephemeral": "", "feldman": [], "shares": []}], r"locks\[0\].payment_hash is not"),
        ("invoices", "bolt11", ["lnbc\n1"], r"bolt11\[0\] has characters that do not print"),
        ("enrolment worker 0", "name", "n" * 257, "name has 257 characters"),
        ("enrolment worker 0", "name", "\u202egnirob", "name has characters that do not print"),
        ("enrolment worker 0", "engine", "torch\u2028", "engine has characters that do not print"),
        ("result", "refused", [{"worker": ID, "reason": "r" * 257}], r"refused\[0\].reason has 257 characters"),
        ("result", "refused", [{"worker": ID, "reason": "a\nb"}], r"refused\[0\].reason has characters that do not print"),
        ("verdict 0", "scores", [{"worker": ID, "error": "e" * 257}], r"scores\[0\].error has 257 characters"),
        ("reveal 0", "blob", {"sha256": ID, "size": -1}, "blob.size is -1"),
        ("reveal 0", "blob", {"sha256": ID, "size": 0}, "blob.size is 0"),
        ("reveal 0", "blob", {"sha256": ID, "size": MAX_BLOB_BYTES + 1}, "blob.size is 1099511627777"),
        ("reveal 0", "blob", {"sha256": ID[1:], "size": 1}, "blob.sha256 is not 32 bytes"),
        ("reveal 0", "blob", {"sha256": ID, "size": 1, "urls": ["http://h"] * (MAX_URLS + 1)}, "blob.urls are more than 4"),
        ("reveal 0", "blob", {"sha256": ID, "size": 1, "urls": ["h" * (MAX_URL + 1)]}, "blob.urls are .* longer than 256 characters"),
        ("reveal 0", "blob", {"sha256": ID, "size": 1, "urls": ["http://h/\r\n"]}, "blob.urls are .* do not print"),
        ("enrolment worker 0", "role", "coordinator", "Invalid enum value"),
        ("enrolment worker 0", "type", "receipt", "Invalid value 'receipt'"),
    ],
)
def test_values_that_cannot_be_are_refused(label: str, field: str, value: object, reason: str) -> None:
    refused(with_content(label, **{field: value}), reason)


def test_a_deadline_in_another_geological_age_is_refused() -> None:
    late = json.loads(EVERYTHING["announcement"].content)["deadlines"] | {"attest_by": 2**40}
    refused(with_content("announcement", deadlines=late), "deadlines.attest_by is 1099511627776")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "content:"),
        ("null", "content:"),
        ("[]", "content:"),
        ('{"v":1', "content:"),
        ('{"v":1,"a":' + "[" * 5000 + "}", "content:"),
        ('{"v":1}\ufeff', "content:"),
        ('{"v":NaN}', "content:"),
        ('{"v":1,"run":"\\ud800"}', "content:"),
        (" " * (MAX_EVENT_BYTES + 1), "16385 characters of content"),
    ],
)
def test_content_that_is_no_body_is_refused(content: str, reason: str) -> None:
    refused(resigned(EVERYTHING["receipt"], content=content), reason)


def test_the_reason_is_one_line_whatever_the_sender_writes() -> None:
    with pytest.raises(RemoteProtocolError, match="ERROR forged line") as raised:
        read_message_untrusted(with_content("receipt", type="a\nERROR forged line\u2028\x1b[31m"))
    assert str(raised.value).isprintable()


@pytest.mark.parametrize("twice", ['"round":1', '"later":0', '"deep":{"a":1,"b":2}'])
def test_a_member_given_twice_is_refused(twice: str) -> None:
    event = EVERYTHING["receipt"]
    again = f"{{{twice},{twice.replace('1', '2')},{event.content[1:]}" if "round" not in twice else f"{{{twice},{event.content[1:]}"
    refused(resigned(event, content=again), "a member is given twice")


def test_a_member_given_twice_deep_inside_is_refused() -> None:
    event = EVERYTHING["reveal 0"]
    refused(resigned(event, content=event.content.replace('"size":', '"size":1,"size":')), "a member is given twice")


# --- bounds --------------------------------------------------------------------------------------------------------------


def test_we_do_not_write_what_would_not_fit() -> None:
    with pytest.raises(LocalProtocolError, match=r"a Receipt of \d+ bytes is too large"):
        draft(m.Receipt(ID, ID, 1, (ID,) * 240), START)


def test_a_manifest_of_too_many_levels_is_refused() -> None:
    scoring = json.loads(EVERYTHING["manifest"].content)["scoring"] | {"levels_ppm": list(range(5))}
    refused(with_content("manifest", scoring=scoring), "5 levels, 4 is the limit")


def test_a_manifest_needs_only_what_has_no_default() -> None:
    content = json.loads(EVERYTHING["manifest"].content)
    optional = [field.name for field in msgspec.structs.fields(RunManifest) if field.default is not msgspec.NODEFAULT and field.name != "v"]
    body = read_message_untrusted(with_content("manifest")).body
    bare = {name: value for name, value in content.items() if name not in optional}
    read = read_message_untrusted(resigned(EVERYTHING["manifest"], content=json.dumps(bare))).body
    assert isinstance(read, RunManifest)
    defaults = {field.name: field.default for field in msgspec.structs.fields(RunManifest) if field.name in optional}
    assert len(defaults) >= 7
    assert read == msgspec.structs.replace(body, **defaults)
