"""Value checks that follow from a struct's annotations: hex of the right length, integers and texts within bounds.

msgspec checks types; this checks that a `Digest` is one, that no integer leaves 63 bits, that no list or text is longer than any honest one.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final, get_args, get_origin, get_type_hints

import msgspec

from nostrain.errors import RemoteProtocolError
from nostrain.protocol.limits import MAX_BLOB_BYTES, MAX_URL, MAX_URLS
from nostrain.protocol.manifest import BlobRef
from nostrain.units import BlockHeight, Digest, EventId, Msat, Pubkey, UnixTime, is_hex32

MAX_ITEMS: Final = 4096
MAX_TEXT: Final = 16_384
MAX_WORDS: Final = 256
"""Characters of a text that a person may see: names, reasons."""
MAX_INTEGER: Final = 1 << 62
MAX_TIME: Final = 1 << 40

ABSENT: Final = (type(None), msgspec.UnsetType)
"""What stands for nothing: a `null`, and a field that is left out."""

Check = Callable[[Any, str], None]


def check_values(value: msgspec.Struct) -> None:
    """Check every field of `value`, recursively. Raises RemoteProtocolError naming the first field that cannot be."""
    for_type(type(value))(value, "")


@cache
def for_type(kind: Any) -> Check:
    """The check for values of one annotated type; they are built once."""
    origin = get_origin(kind)
    if kind in (Digest, EventId, Pubkey):
        return hex32
    if kind in (Msat, UnixTime, BlockHeight):
        return natural
    if origin in (typing.Union, types.UnionType):
        return one_of(tuple(for_type(option) for option in get_args(kind) if option not in ABSENT), get_args(kind))
    if origin is tuple:
        return items(get_args(kind))
    if isinstance(kind, type) and issubclass(kind, BlobRef):
        return blob
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return fields(kind)
    while hasattr(kind, "__supertype__"):
        kind = kind.__supertype__
    return {int: integer, str: text}.get(kind, anything)


def fail(path: str, reason: str) -> typing.NoReturn:
    """One clear line."""
    raise RemoteProtocolError("event content", f"{path.lstrip('.') or 'value'} {reason}")


def anything(_value: Any, _path: str) -> None:
    """Nothing to check beyond the type."""


def hex32(value: Any, path: str) -> None:
    """32 bytes in lowercase hex."""
    if not is_hex32(value):
        fail(path, "is not 32 bytes of lowercase hex")


def natural(value: Any, path: str) -> None:
    """A time, height or amount."""
    if not 0 <= value < MAX_INTEGER or (value >= MAX_TIME and path.endswith(("_by", "maturity", "created_at"))):
        fail(path, f"is {value}")


def integer(value: Any, path: str) -> None:
    """Any other integer."""
    if not -MAX_INTEGER < value < MAX_INTEGER:
        fail(path, "does not fit into 63 bits")


def text(value: Any, path: str) -> None:
    """Any other text: printable, on one line, so that it can stand in a log; short where a person reads it."""
    if len(value) > (MAX_WORDS if path.endswith((".name", ".reason", ".error", ".engine", ".doing")) else MAX_TEXT):
        fail(path, f"has {len(value)} characters")
    if not value.isprintable():
        fail(path, "has characters that do not print")


def blob(value: BlobRef, path: str) -> None:
    """A blob that could be one, with few and short URLs."""
    hex32(value.sha256, f"{path}.sha256")
    if not 0 < value.size <= MAX_BLOB_BYTES:
        fail(f"{path}.size", f"is {value.size}")
    if len(value.urls) > MAX_URLS or any(len(url) > MAX_URL or not url.isprintable() for url in value.urls):
        fail(f"{path}.urls", f"are more than {MAX_URLS}, longer than {MAX_URL} characters, or do not print")


def items(kinds: tuple[Any, ...]) -> Check:
    """A tuple, homogeneous or not."""
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        each = for_type(kinds[0])

        def homogeneous(value: Any, path: str) -> None:
            if len(value) > MAX_ITEMS:
                fail(path, f"has {len(value)} items")
            for index, item in enumerate(value):
                each(item, f"{path}[{index}]")

        return homogeneous
    checks = tuple(for_type(kind) for kind in kinds)

    def positional(value: Any, path: str) -> None:
        for index, (check, item) in enumerate(zip(checks, value, strict=True)):
            check(item, f"{path}[{index}]")

    return positional


def one_of(checks: tuple[Check, ...], kinds: tuple[Any, ...]) -> Check:
    """An optional value, or one of several structs."""

    def union(value: Any, path: str) -> None:
        if isinstance(value, ABSENT):
            return
        if isinstance(value, msgspec.Struct):
            for_type(type(value))(value, path)
        else:
            checks[0](value, path)

    assert len(checks) == 1 or all(isinstance(kind, type) for kind in kinds)
    return union


def fields(kind: type[msgspec.Struct]) -> Check:
    """Every field of a struct."""
    hints: Mapping[str, Any] = get_type_hints(kind)
    checks = tuple((name, for_type(hints[name])) for name in kind.__struct_fields__)

    def struct(value: Any, path: str) -> None:
        for name, check in checks:
            check(getattr(value, name), f"{path}.{name}")

    return struct
