"""A run of many empty rounds, after the round of the examples."""

from __future__ import annotations

import msgspec

from nostrain.core.rows import NodeState
from nostrain.protocol.messages import Message
from tests.core.actors import EXAMPLES, MESSAGES, ROUND, Node
from tests.core.replicas import booted, empty, next_announcement
from tests.docs.examples import WORKERS


def rounds(count: int) -> list[Message]:
    """So many empty rounds after the examples' (whose manifest says eight in all)."""
    chain, head = [], MESSAGES["result"].id
    for number in range(2, 2 + count):
        opened = next_announcement(head, number, 100 * number)
        closed = empty(opened, 100 * number + 95)
        chain += [opened, closed]
        head = closed.id
    return chain


def long_run() -> Node:
    """A node that follows a run of many rounds, and has just closed the first."""
    manifest = msgspec.structs.replace(EXAMPLES.manifest, rounds=100)
    node = booted(WORKERS[0])
    node.hear(ROUND[1:])
    run = msgspec.structs.replace(node.run, manifest=manifest)
    node.state = NodeState({**node.state.rows, "run": run})
    node.speak()
    return node
