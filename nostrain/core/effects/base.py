"""What every effect has, and the two outcomes that say nothing of their own."""

from __future__ import annotations

import msgspec


class EffectBase(msgspec.Struct, frozen=True):
    """`owner` is the row key of the machine that asked; `name` is unique within it."""

    owner: str
    name: str

    @property
    def id(self) -> str:
        """Identity of the effect: owner#name."""
        return f"{self.owner}#{self.name}"


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The other side broke the protocol, or refused for good; it will not get better by trying again."""

    reason: str


class Ok(msgspec.Struct, frozen=True, tag="ok"):
    """Done, with nothing to tell."""
