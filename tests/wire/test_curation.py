"""Curations: signed, of the dataset that they are shown with, or refused; in a run manifest they decide who joins."""

from __future__ import annotations

import json

import msgspec
import pytest

from nostrain.errors import RemoteProtocolError
from nostrain.protocol.event import Event
from nostrain.protocol.manifest import RunManifest
from nostrain.units import Digest, UnixTime
from nostrain.wire import kinds
from nostrain.wire.curation import check_curation_untrusted, curation_draft, read_curations_untrusted
from nostrain.wire.event import encode_event
from tests.core.actors import EXAMPLES, Node, say
from tests.docs.examples import COORDINATOR, VALIDATORS, WORKERS

DATASET = EXAMPLES.manifest.dataset.sha256
OTHER = Digest("ab" * 32)
CURATOR = VALIDATORS[0]
TIME = UnixTime(1_767_225_000)


def signed(dataset: Digest = DATASET, **changes: object) -> Event:
    return CURATOR.signer.sign(msgspec.structs.replace(curation_draft(dataset, "tidy", TIME), **changes))


def test_a_curation_is_read_as_it_was_signed() -> None:
    event = signed()
    assert event.kind == kinds.CURATION
    assert check_curation_untrusted(event, DATASET) == event
    two = encode_event(event) + b"\n\n" + encode_event(event)
    assert read_curations_untrusted(two, DATASET) == (event, event)


def content(**changes: object) -> str:
    return json.dumps({"type": "curation", "dataset": DATASET, **changes})


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (signed(OTHER), "is not of the dataset"),
        (msgspec.structs.replace(signed(), sig="00" * 64), "signature"),
        (msgspec.structs.replace(signed(), pubkey=WORKERS[0].pubkey), "id"),
        (signed(kind=1), "is of kind 1"),
        (signed(tags=(("t", "nostrain"),)), "is not of the dataset"),
        (signed(content="{}"), "dataset"),
        (signed(content=content(v=2)), "is not of the dataset"),
        (signed(content=content(type="other")), "other"),
        (signed(content=content(name="a\nb")), "do not print"),
    ],
)
def test_anything_else_is_refused(event: Event, reason: str) -> None:
    with pytest.raises(RemoteProtocolError, match=reason):
        check_curation_untrusted(event, DATASET)
    with pytest.raises(RemoteProtocolError, match=r"curations\.jsonl, line 2"):
        read_curations_untrusted(encode_event(signed()) + b"\n" + encode_event(event), DATASET)


def manifest(*curations: Event) -> RunManifest:
    return msgspec.structs.replace(EXAMPLES.manifest, curations=curations)


@pytest.mark.parametrize("curations", [(signed(OTHER),), (msgspec.structs.replace(signed(), sig="00" * 64),), (signed(),) * 5])
def test_a_manifest_with_a_false_one_is_refused(curations: tuple[Event, ...]) -> None:
    with pytest.raises(RemoteProtocolError):
        say(COORDINATOR, manifest(*curations), 0)


@pytest.mark.parametrize(
    ("curators", "curations", "joined"),
    [
        ((), (), True),
        ((CURATOR.pubkey,), (signed(),), True),
        ((WORKERS[1].pubkey, CURATOR.pubkey), (signed(),), True),
        ((CURATOR.pubkey,), (), False),
        ((WORKERS[1].pubkey,), (signed(),), False),
    ],
)
def test_who_names_curators_joins_only_what_one_of_them_signed(
    curators: tuple[str, ...], curations: tuple[Event, ...], joined: bool
) -> None:
    node = Node(WORKERS[0], "worker")
    rows = {**node.state.rows, "node": msgspec.structs.replace(node.identity, join_curators=curators)}
    node.state = type(node.state)(rows)
    node.hear([say(COORDINATOR, manifest(*curations), 0)])
    assert ("run" in node.state.rows) == joined
    assert joined or "none of our curators signed its dataset" in node.notes[-1].text


def test_a_draft_says_nothing_but_the_digest() -> None:
    draft = curation_draft(DATASET, "tidy", TIME)
    assert (draft.created_at, draft.kind, draft.tags) == (TIME, 8668, (("t", "nostrain"), ("x", DATASET)))
    assert json.loads(draft.content) == {"type": "curation", "dataset": DATASET, "name": "tidy", "v": 1}
