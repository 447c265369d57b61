"""Rows and inputs ⇄ the journal's bytes: JSON, so that an operator can read the state with any SQLite shell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from nostrain.core.inputs import Input
from nostrain.core.rows import NodeState, Row
from nostrain.core.transaction import changes
from nostrain.errors import ConfigError
from nostrain.ports.journal import Batch
from nostrain.protocol.ledger import LedgerEntry
from nostrain.units import UnixTime

_encoder: Final = msgspec.json.Encoder()
_row_decoder: Final = msgspec.json.Decoder(Row)


class Logged(msgspec.Struct, frozen=True):
    """One line of the audit log: an input and when it was taken."""

    at: UnixTime
    input: Input


def load_state(rows: Mapping[str, bytes]) -> NodeState:
    """The state that was committed last. Raises ConfigError naming a row that this version cannot read."""
    state: dict[str, Row] = {}
    for key, data in rows.items():
        try:
            state[key] = _row_decoder.decode(data)
        except msgspec.DecodeError as error:
            raise ConfigError("journal", key, f"this version cannot read the row: {error}", "Run the version that wrote it.") from error
    return NodeState(state)


def batch_of(inputs: list[Logged], before: NodeState, after: NodeState, entries: Sequence[LedgerEntry] = ()) -> Batch:
    """What one commit writes."""
    rows = {key: None if row is None else _encoder.encode(row) for key, row in changes(before, after).items()}
    return Batch(inputs=tuple(_encoder.encode(logged) for logged in inputs), rows=rows, entries=tuple(entries))
