"""Which blobs and which files rows mention: a walk over structs that enters only what, by its type, can hold a digest or a path.

Most of a state is numbers, keys and event ids: to search its JSON for one digest after the other took a run of 20 workers more time than all else that
a round makes of its machines. Signed events are passed over: they are kept to be sent, while their body stands in the row beside them,
or as evidence, which is read without blobs, of what the row of their round was made of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Any, Final, Literal, NamedTuple, NewType, Union, get_args, get_origin, get_type_hints

import msgspec

from nostrain.core.rows import Row
from nostrain.errors import LocalProtocolError
from nostrain.protocol.event import Event
from nostrain.units import Digest


class Mentions(NamedTuple):
    """Every digest that rows hold, and every text that is no digest, key or id: the paths are among them."""

    digests: set[str]
    texts: set[str]


Visit = Callable[[Any, Mentions], None]
SCALARS: Final = (int, float, bool, bytes, NoneType, msgspec.UnsetType)


def mentioned(rows: Iterable[Row]) -> Mentions:
    """What `rows` mention."""
    found = Mentions(set(), set())
    for row in rows:
        visit = visit_of(type(row))
        if visit is not None:
            visit(row, found)
    return found


@cache
def visit_of(kind: Any) -> Visit | None:
    """How to look through a value of the type `kind`; None: there is nothing to be found. Raises LocalProtocolError: no row may hold such a type."""
    origin = get_origin(kind)
    if kind is Digest:
        return digest
    if kind is str:
        return text
    if (
        kind is Event
        or kind in SCALARS
        or isinstance(kind, NewType)
        or origin is Literal
        or (isinstance(kind, type) and issubclass(kind, Enum))
    ):
        return None
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return fields(kind)
    if origin in (Union, UnionType):
        return one_of(get_args(kind))
    if origin is tuple and get_args(kind)[-1] is not Ellipsis:
        return side_by_side(get_args(kind))
    if origin in (tuple, frozenset):
        return each(get_args(kind)[0])
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return mapping(*get_args(kind))
    raise LocalProtocolError(f"a row holds {kind!r}, of which core.mentions does not know what it mentions")


def digest(value: Any, found: Mentions) -> None:
    """A digest."""
    found.digests.add(value)


def text(value: Any, found: Mentions) -> None:
    """Some text."""
    found.texts.add(value)


def fields(kind: type[msgspec.Struct]) -> Visit | None:
    """The fields of a struct."""
    hints = get_type_hints(kind)
    wanted = tuple((name, visit) for name in kind.__struct_fields__ if (visit := visit_of(hints[name])) is not None)

    def struct(value: Any, found: Mentions) -> None:
        for name, visit in wanted:
            visit(getattr(value, name), found)

    return struct if wanted else None


def one_of(kinds: tuple[Any, ...]) -> Visit | None:
    """One of several structs, or what is no struct: that is of one kind at most."""
    visits = {kind: visit for kind in kinds if (visit := visit_of(kind)) is not None}
    structs = {kind: visit for kind, visit in visits.items() if isinstance(kind, type) and issubclass(kind, msgspec.Struct)}
    others = [visit for kind, visit in visits.items() if kind not in structs]
    if len(others) > 1:
        raise LocalProtocolError(f"a row holds one of {kinds!r}, which core.mentions cannot tell apart")

    def union(value: Any, found: Mentions) -> None:
        if isinstance(value, msgspec.Struct):
            visit = structs.get(type(value))
        else:
            visit = others[0] if others and not isinstance(value, NoneType | msgspec.UnsetType) else None
        if visit is not None:
            visit(value, found)

    return union if visits else None


def each(kind: Any) -> Visit | None:
    """Any number of one kind."""
    visit = visit_of(kind)
    if visit is None:
        return None

    def items(values: Any, found: Mentions) -> None:
        for value in values:
            visit(value, found)

    return items


def side_by_side(kinds: tuple[Any, ...]) -> Visit | None:
    """A tuple with a kind for each place."""
    wanted = tuple((place, visit) for place, kind in enumerate(kinds) if (visit := visit_of(kind)) is not None)

    def places(value: Any, found: Mentions) -> None:
        for place, visit in wanted:
            visit(value[place], found)

    return places if wanted else None


def mapping(key: Any, kind: Any) -> Visit | None:
    """Keys and values."""
    keys, values = each(key), each(kind)
    if keys is None and values is None:
        return None

    def entries(value: Any, found: Mentions) -> None:
        if keys is not None:
            keys(value, found)
        if values is not None:
            values(value.values(), found)

    return entries
