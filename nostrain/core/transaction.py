"""One step's view of the state: reads fall through to the rows before, writes stay in an overlay until the step ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeVar

import msgspec

from nostrain.core.effects import Effect
from nostrain.core.groups import group_of
from nostrain.core.identity import Identity
from nostrain.core.rows import NodeState, Outbox, Outstanding, Round, Row, Run, WorkerMemory
from nostrain.errors import LocalProtocolError
from nostrain.protocol.ledger import EntryKind, LedgerEntry
from nostrain.protocol.messages import Body
from nostrain.units import Digest, Msat, Pubkey, UnixTime

RowT = TypeVar("RowT", bound=Row)


class Note(msgspec.Struct, frozen=True):
    """Something a person may want to know of: one line, and the counter it belongs to. Not part of the state."""

    level: Literal["info", "warning", "fault"]
    counter: str
    text: str


class Transaction:
    """Mutable for the length of one step; nothing of it survives an exception. `version` counts the changes made so far."""

    def __init__(self, state: NodeState, now: UnixTime) -> None:
        self.now = now
        self.version = 0
        self._before, self._groups = state.rows, state.groups
        self._changed: dict[str, Row | None] = {}
        self.emitted: list[Effect] = []
        self.notes: list[Note] = []
        self.entries: list[LedgerEntry] = []

    @property
    def me(self) -> Identity:
        """Who we are. Raises LocalProtocolError before Boot."""
        return self.need("node", Identity)

    @property
    def run(self) -> Run | None:
        """The run that we follow, if one was found."""
        return self.get("run", Run)

    @property
    def memory(self) -> WorkerMemory:
        """What a worker keeps from round to round; a fresh one before its first."""
        return self.get("worker", WorkerMemory) or WorkerMemory()

    def _row(self, key: str) -> Row | None:
        return self._changed[key] if key in self._changed else self._before.get(key)

    def _set(self, key: str, row: Row | None) -> None:
        self._changed[key] = row
        self.version += 1

    def get(self, key: str, kind: type[RowT]) -> RowT | None:
        """The row under `key`, or None."""
        row = self._row(key)
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
        present = self._row(key)
        if present is not row and present != row:
            self._set(key, row)

    def delete(self, key: str) -> None:
        """Remove a row if it is there."""
        if self._row(key) is not None:
            self._set(key, None)

    def keys(self, prefix: str) -> list[str]:
        """Keys of present rows that start with `prefix`, sorted. What precedes its first slash is a whole group's name."""
        group, changed = group_of(prefix), self._changed
        new = [key for key, row in changed.items() if row is not None and key.startswith(prefix) and key not in self._before]
        new = [key for key in new if group_of(key) == group]
        kept = [key for key in self._groups.get(group, ()) if key.startswith(prefix) and changed.get(key, self) is not None]
        return sorted(kept + new) if new else kept

    def emit(self, effect: Effect) -> None:
        """Ask the shell for `effect`, unless it is outstanding already."""
        key = f"effect/{effect.id}"
        if self._row(key) is None:
            self._set(key, Outstanding(effect))
            self.emitted.append(effect)

    def outstanding(self, effect_id: str) -> Effect | None:
        """The outstanding effect of that id."""
        row = self.get(f"effect/{effect_id}", Outstanding)
        return row.effect if row else None

    def withdraw(self, owner: str, name: str | None = None) -> None:
        """Take back one outstanding effect of a machine, or all of them; the shell cancels what it is running of them."""
        for key in self.keys(f"effect/{owner}#"):
            if name is None or key == f"effect/{owner}#{name}":
                self.delete(key)

    def say(self, key: str, body: Body, *, recipient: Pubkey | None = None, created_at: UnixTime | None = None) -> bool:
        """Put `body` into the outbox under `key`, once; whether it was new. The outbox machine signs and sends it."""
        if self._row(f"outbox/{key}") is not None:
            return False
        self._set(f"outbox/{key}", Outbox(created_at=self.now if created_at is None else created_at, recipient=recipient, body=body))
        return True

    def said(self, key: str) -> Outbox | None:
        """What was put into the outbox under `key`."""
        return self.get(f"outbox/{key}", Outbox)

    def note(self, level: Literal["info", "warning", "fault"], counter: str, text: str) -> None:
        """Tell whoever watches."""
        self.notes.append(Note(level, counter, text))

    def book(self, kind: EntryKind, round_: Round, sum_msat: Msat, payment_hash: Digest, party: Pubkey) -> None:
        """Enter an amount in the ledger, together with the change of state that it comes from, and so exactly once."""
        said = round_.announcement
        self.entries.append(LedgerEntry(self.now, said.run, said.round, round_.id, kind, sum_msat, payment_hash, party))

    def result(self) -> NodeState:
        """The state after the step."""
        if not self._changed:
            return NodeState(self._before, self._groups)
        rows: dict[str, Row] = {**self._before}
        stale: set[str] = set()
        for key, row in self._changed.items():
            if (row is None) is (key in rows):
                stale.add(group_of(key))
            if row is None:
                rows.pop(key, None)
            else:
                rows[key] = row
        groups = {**self._groups} | {group: tuple(self.keys(group)) for group in stale}
        return NodeState(rows, {group: keys for group, keys in groups.items() if keys})


def changes(before: NodeState, after: NodeState) -> Mapping[str, Row | None]:
    """Rows that differ, None for those that are gone."""
    gone: dict[str, Row | None] = {key: None for key in before.rows if key not in after.rows}
    return gone | {key: row for key, row in after.rows.items() if before.rows.get(key) is not row}
