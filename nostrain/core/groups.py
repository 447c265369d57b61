"""The index of a state's row keys: a key belongs to the group that stands before its first slash."""

from __future__ import annotations

from collections.abc import Iterable


def group_of(key: str) -> str:
    """The group that a row key belongs to."""
    return key.partition("/")[0]


def grouped(keys: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The sorted keys of each group."""
    groups: dict[str, list[str]] = {}
    for key in sorted(keys):
        groups.setdefault(group_of(key), []).append(key)
    return {group: tuple(members) for group, members in groups.items()}
