"""A value of every struct that there is."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from enum import Enum
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec


@cache
def example(kind: Any) -> Any:
    """A value of an annotated type with every field set: no default, nothing empty, and of a union its first member that is not None."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return example(next(option for option in arguments if option is not type(None)))
    if origin is Literal:
        return arguments[-1]
    if origin is tuple:
        return tuple(example(item) for item in arguments if item is not Ellipsis)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {example(arguments[0]): example(arguments[1])}
    while hasattr(kind, "__supertype__"):
        kind = kind.__supertype__
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        hints = get_type_hints(kind)
        return kind(**{name: example(hints[name]) for name in kind.__struct_fields__})
    if isinstance(kind, type) and issubclass(kind, Enum):
        return list(kind)[-1]
    return {int: 7, str: "ab" * 32, bool: True}[kind]


def members(union: Any) -> list[Any]:
    return list(get_args(union))
