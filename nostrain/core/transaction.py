"""One step's view of the state: reads fall through to the rows before, writes stay in an overlay until the step ends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, TypeVar

import msgspec

from nostrain.core.effects import Effect
from nostrain.core.rows import Identity, NodeState, Outbox, Outstanding, Row, Run
from nostrain.errors import LocalProtocolError
from nostrain.protocol.messages import Body
from nostrain.units import Pubkey, UnixTime

RowT = TypeVar("RowT", bound=Row)


class Note(msgspec.Struct, frozen=True):
    """Something a person may want to know of: one line, and the counter it belongs to. Not part of the state."""

    level: Literal["info", "warning", "fault"]
    counter: str
    text: str


class Transaction:
    """Mutable for the length of one step; nothing of it survives an exception."""

    def __init__(self, state: NodeState, now: UnixTime) -> None:
        self.now = now
        self._before = state.rows
        self.changed: dict[str, Row | None] = {}
        self.emitted: list[Effect] = []
        self.notes: list[Note] = []

    @property
    def me(self) -> Identity:
        """Who we are. Raises LocalProtocolError before Boot."""
        return self.need("node", Identity)

    @property
    def run(self) -> Run | None:
        """The run that we follow, if one was found."""
        return self.get("run", Run)

    def get(self, key: str, kind: type[RowT]) -> RowT | None:
        """The row under `key`, or None."""
        row = self.changed[key] if key in self.changed else self._before.get(key)
        if row is not None and not isinstance(row, kind):
            raise LocalProtocolError(f"row {key} is a {type(row).__name__}, not a {kind.__name__}")
        return row

    def need(self, key: str, kind: type[RowT]) -> RowT:
        """The row under `key`; raises LocalProtocolError if there is none."""
        row = self.get(key, kind)
        if row is None:
            raise LocalProtocolError(f"row {key} is missing")
        return row

    def put(self, key: str, row: Row) -> None:
        """Write a row; writing what is there already changes nothing."""
        present = self.changed[key] if key in self.changed else self._before.get(key)
        if present is None or present != row:
            self.changed[key] = row

    def delete(self, key: str) -> None:
        """Remove a row if it is there."""
        if key in self._before:
            self.changed[key] = None
        else:
            self.changed.pop(key, None)

    def keys(self, prefix: str) -> Iterator[str]:
        """Keys of present rows that start with `prefix`, sorted."""
        present = {key for key in self._before if key.startswith(prefix)} | {k for k in self.changed if k.startswith(prefix)}
        return iter(sorted(key for key in present if self.changed.get(key, self) is not None))

    def emit(self, effect: Effect) -> None:
        """Ask the shell for `effect`, unless it is outstanding already."""
        key = f"effect/{effect.id}"
        if self.get(key, Outstanding) is None:
            self.changed[key] = Outstanding(effect)
            self.emitted.append(effect)

    def outstanding(self, effect_id: str) -> Effect | None:
        """The outstanding effect of that id."""
        row = self.get(f"effect/{effect_id}", Outstanding)
        return row.effect if row else None

    def withdraw(self, prefix: str) -> None:
        """Take back every outstanding effect whose id starts with `prefix`; the shell cancels what it is running of them."""
        for key in list(self.keys(f"effect/{prefix}")):
            self.delete(key)
        self.emitted = [effect for effect in self.emitted if not effect.id.startswith(prefix)]

    def say(self, key: str, body: Body, *, recipient: Pubkey | None = None, created_at: UnixTime | None = None) -> bool:
        """Put `body` into the outbox under `key`, once; whether it was new. The outbox machine signs and sends it."""
        if self.get(f"outbox/{key}", Outbox) is not None:
            return False
        self.changed[f"outbox/{key}"] = Outbox(created_at=self.now if created_at is None else created_at, recipient=recipient, body=body)
        return True

    def said(self, key: str) -> Outbox | None:
        """What was put into the outbox under `key`."""
        return self.get(f"outbox/{key}", Outbox)

    def note(self, level: Literal["info", "warning", "fault"], counter: str, text: str) -> None:
        """Tell whoever watches."""
        self.notes.append(Note(level, counter, text))

    def result(self) -> NodeState:
        """The state after the step."""
        rows: dict[str, Row] = {key: row for key, row in self._before.items() if key not in self.changed}
        rows.update({key: row for key, row in self.changed.items() if row is not None})
        return NodeState(rows)


def changes(before: NodeState, after: NodeState) -> Mapping[str, Row | None]:
    """Rows that differ, None for those that are gone."""
    gone: dict[str, Row | None] = {key: None for key in before.rows if key not in after.rows}
    return gone | {key: row for key, row in after.rows.items() if before.rows.get(key) is not row}
