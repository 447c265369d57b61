"""What rows mention is found by their types, as a search in their JSON finds it: in rows of every kind, and in those of a round of the examples."""

from __future__ import annotations

import random
from collections.abc import Mapping
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Literal, NewType, Union, get_args, get_origin, get_type_hints

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nostrain.core.mentions import mentioned, visit_of
from nostrain.core.retention import work_files
from nostrain.core.rows import Row, WorkerMemory
from nostrain.errors import LocalProtocolError
from nostrain.protocol.event import Event
from nostrain.protocol.manifest import RunManifest
from nostrain.protocol.messages import Result, Reveal
from nostrain.units import Digest
from tests.core.actors import LABELS, MESSAGES, until
from tests.core.answered import Node, Role
from tests.docs.examples import VALIDATORS, WORKERS

DIGESTS = [Digest(f"{n:064x}") for n in range(1, 9)]
PATHS = [f"/work/{n:05d}.state" for n in range(1, 5)]
OTHER = "f" * 64
KINDS = sorted(get_args(Row), key=lambda kind: kind.__name__)


def value(kind: Any, rng: random.Random) -> Any:
    """Any value of a type: digests and texts are few, so that they are told apart; an event holds none of them."""
    origin, args = get_origin(kind), get_args(kind)
    if kind is Digest:
        return rng.choice(DIGESTS)
    if kind is str:
        return rng.choice([*PATHS, "text"])
    if kind is Event:
        return Event(OTHER, OTHER, 1, 1, (), "", OTHER)  # type: ignore[arg-type]
    if isinstance(kind, NewType):
        return OTHER if kind.__supertype__ is str else 1
    if kind in (int, float, bool, bytes, NoneType):
        return None if kind is NoneType else kind()
    if kind is msgspec.UnsetType:
        return msgspec.UNSET
    if origin is Literal or (isinstance(kind, type) and issubclass(kind, Enum)):
        return rng.choice(args or sorted(kind, key=str))
    if origin in (Union, UnionType):
        return value(rng.choice(args), rng)
    if origin is tuple and args[-1] is not Ellipsis:
        return tuple(value(arg, rng) for arg in args)
    if origin in (tuple, frozenset):
        return origin(value(args[0], rng) for _ in range(rng.randrange(3)))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {value(args[0], rng): value(args[1], rng) for _ in range(rng.randrange(3))}
    hints = get_type_hints(kind)
    return kind(**{name: value(hints[name], rng) for name in kind.__struct_fields__})


def in_json(rows: list[Any], names: list[Any]) -> set[str]:
    """Those of `names` that stand somewhere in the rows' JSON."""
    text = b"\n".join(map(msgspec.json.encode, rows))
    return {name for name in names if name.encode() in text}


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_rows_of_every_kind_mention_what_stands_in_their_json(kind: Any, seed: int) -> None:
    row = value(kind, random.Random(seed))
    found = mentioned([row])
    assert found.digests == in_json([row], DIGESTS)
    assert found.texts - {"text"} == in_json([row], PATHS)


@pytest.mark.parametrize("role", ["worker", "validator"])
@pytest.mark.parametrize("label", LABELS[::6])
def test_signed_events_that_are_passed_over_name_no_blob_that_no_row_names(role: Role, label: str) -> None:
    node = Node(WORKERS[0] if role == "worker" else VALIDATORS[0], role).hear(until(label))
    blobs = [message.body.blob.sha256 for message in MESSAGES.values() if isinstance(message.body, Reveal)]
    blobs += [message.body.checkpoint.sha256 for message in MESSAGES.values() if isinstance(message.body, Result | RunManifest)]
    rows = list(node.state.rows.values())
    assert mentioned(rows).digests & set(blobs) == in_json(rows, blobs)


def test_a_type_that_is_not_known_is_a_bug_and_nothing_to_pass_over() -> None:
    for kind in (object, list[str], str | tuple[str, ...]):
        with pytest.raises(LocalProtocolError, match=r"core\.mentions"):
            visit_of(kind)


def test_files_are_named_by_what_follows_the_folder() -> None:
    for folder in ("/work", '/a "b" \\ c', "/ärger"):
        texts = mentioned([WorkerMemory(f"{folder}/00001-aabb.state")]).texts
        assert work_files(texts, folder) == ("00001-aabb.state",)
        assert work_files(texts, "/elsewhere") == work_files(texts, folder + "/00001") == ()
    assert work_files({"/work", "/work/", "/work/a/b", "work/c"}, "/work") == ("a",)
