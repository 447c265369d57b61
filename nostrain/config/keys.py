"""The keys of the schema by dotted name: what exists, of which type, and what someone probably meant."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Final, Literal, get_args, get_origin

import msgspec

from nostrain.config.schema import DaemonConfig


def _bare(annotation: Any) -> Any:
    """`annotation` without `Annotated[…]` and `| None`."""
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    if isinstance(annotation, UnionType):
        return _bare(next(arg for arg in get_args(annotation) if arg is not type(None)))
    return annotation


def _walk(table: type[msgspec.Struct], prefix: str) -> Iterator[tuple[str, Any]]:
    for field in msgspec.structs.fields(table):
        bare, name = _bare(field.type), prefix + field.name
        yield name, bare
        if isinstance(bare, type) and issubclass(bare, msgspec.Struct):
            yield from _walk(bare, name + ".")


KEYS: Final[dict[str, Any]] = dict(_walk(DaemonConfig, ""))
"""Dotted key -> its type; tables have their struct."""

REPLACED: Final = {
    "coordinator.run.settlement.level_msat": "Say what a round pays in all and to how many: pool_sat and slots; a level pays pool_sat / slots / levels",
    "coordinator.run.settlement.fee_msat": "Write fee_sat, in whole sat",
}
"""Keys of earlier versions, and what to write now."""


def is_table(key: str) -> bool:
    """Whether `key` names a table."""
    return isinstance(KEYS[key], type) and issubclass(KEYS[key], msgspec.Struct)


SETTINGS: Final[tuple[str, ...]] = tuple(key for key in KEYS if not is_table(key))
"""Every key that holds a value."""


def choices(key: str) -> tuple[str, ...]:
    """The words that `key` (or an item of it) may hold; empty if it is not an enumeration."""
    kind = KEYS.get(key)
    if get_origin(kind) is tuple:
        kind = _bare(get_args(kind)[0])
    return get_args(kind) if get_origin(kind) is Literal else ()


def nearest(word: str, candidates: Iterator[str] | tuple[str, ...]) -> str | None:
    """The candidate that `word` was probably meant to be."""
    return next(iter(difflib.get_close_matches(word, list(candidates), n=1, cutoff=0.6)), None)


def nearest_key(key: str) -> str | None:
    """The known key that `key` was probably meant to be: a misspelling, or the right word in the wrong table."""
    word = key.rpartition(".")[2]
    moved = [known for known in KEYS if known.rpartition(".")[2] == word]
    return moved[0] if moved else nearest(key, tuple(KEYS))


def value_from_text(key: str, text: str) -> object:
    """`text`, given on the command line or in the environment, as a value for `key`: strings need no quotes, lists may be separated by commas.

    What does not fit the type is returned as it is, for the schema to refuse.
    """
    kind = KEYS[key]
    if kind is str or get_origin(kind) is Literal:
        return text
    if get_origin(kind) is tuple and not text.lstrip().startswith("["):
        return [item.strip() for item in text.split(",") if item.strip()]
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
