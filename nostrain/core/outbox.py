"""What we say: drafted by a policy, signed, sent; each step durable before the next, so that a retry is never a second statement."""

from __future__ import annotations

import msgspec

from nostrain.core.effects import Failed, Ok, Outcome, Send, Sign, Signed
from nostrain.core.rows import Outbox
from nostrain.core.transaction import Transaction
from nostrain.errors import IllegalTransition
from nostrain.protocol.messages import Message


def decide(tx: Transaction) -> None:
    """Emit the next effect of everything that is not sent yet."""
    for key in tx.keys("outbox/"):
        row = tx.need(key, Outbox)
        if row.stage == "draft" and row.body is not None:
            tx.emit(Sign(owner=key, name="sign", body=row.body, created_at=row.created_at))
        elif row.stage == "signed" and row.event is not None:
            tx.emit(Send(owner=key, name="send", event=row.event, recipient=row.recipient))


def done(tx: Transaction, key: str, outcome: Outcome) -> Message | None:
    """Take an outcome. When something was signed, the message is returned: we hear ourselves first, as everyone else will."""
    row = tx.get(key, Outbox)
    if row is None:
        return None
    match outcome:
        case Signed(event=event, message=message) if row.stage == "draft":
            tx.put(key, msgspec.structs.replace(row, stage="signed", event=event, event_id=event.id, body=None))
            return message
        case Ok() if row.stage == "signed":
            tx.put(key, msgspec.structs.replace(row, stage="sent", event=None))
        case Failed(reason=reason) if row.stage == "signed":
            tx.put(key, msgspec.structs.replace(row, stage="refused", event=None))
            tx.note("fault", "events_refused", f"{key.removeprefix('outbox/')} was refused by the relays: {reason}")
        case _:
            raise IllegalTransition(f"{key} is {row.stage}, got {type(outcome).__name__}")
    return None
