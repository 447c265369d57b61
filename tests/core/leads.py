"""The coordinator of the examples, brought to the stages of a round that it leads."""

from __future__ import annotations

from nostrain.core.rows import Lead
from nostrain.protocol.messages import Message
from tests.core.actors import EXAMPLES, LABELS, LIMITS, MESSAGES, Node, until
from tests.docs.examples import COORDINATOR

LEAD = f"lead/{EXAMPLES.round_id}"
GRACE = EXAMPLES.manifest.timing.grace_s
COLLECT_BY = LIMITS.attest_by + GRACE


def leader(heard: list[Message], after: int = 44) -> Node:
    """A coordinator with its state, at a moment."""
    return Node(COORDINATOR, "coordinator").hear(heard).sold().ready().at(after)


def one(node: Node, kind: type) -> Message:
    """The one message of a type that the node has to say now."""
    (message,) = [message for message in node.speak() if isinstance(message.body, kind)]
    return message


def lead(node: Node) -> Lead:
    return node.row(LEAD, Lead)


def collecting(labels: list[str], after: int = 66) -> Node:
    """A coordinator that pinned the examples' commitments itself, and then heard these."""
    node = leader(until("commitment 2"))
    node.speak()
    return node.hear([MESSAGES[label] for label in labels]).at(after)


AFTER_RECEIPT = LABELS[LABELS.index("acknowledgement 0") : LABELS.index("result")]


def without(*labels: str) -> list[str]:
    return [label for label in AFTER_RECEIPT if label not in labels]
