"""An epoch of several rounds, as its participants hear it."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from nostrain.core.timing import epoch_ends
from nostrain.protocol import messages as m
from nostrain.protocol.digests import epoch_event_id
from nostrain.protocol.manifest import RunManifest
from tests.core.actors import EXAMPLES, LIMITS, Node, until
from tests.docs.examples import WORKERS, Party

LISTED = tuple(sorted(worker.pubkey for worker in WORKERS))


def manifest(rounds: int, epoch_rounds: int) -> RunManifest:
    """The example's, with other numbers."""
    settlement = msgspec.structs.replace(EXAMPLES.manifest.settlement, epoch_rounds=epoch_rounds)
    return msgspec.structs.replace(EXAMPLES.manifest, rounds=rounds, settlement=settlement)


def listener(messages: Iterable[m.Message], epoch_rounds: int = 2) -> Node:
    """A node that follows the example's run, as if its manifest had epochs, and has heard `messages` of its first round."""
    node = Node(Party("listener"))
    node.hear(until("manifest"))
    run = msgspec.structs.replace(node.run, manifest=manifest(8, epoch_rounds))
    node.state = msgspec.structs.replace(node.state, rows={**node.state.rows, "run": run}, groups={})
    return node.hear(list(messages)[len(until("manifest")) :])


def thermometers(party: Party, maturity: int) -> m.OracleAnnouncements:
    """A second thermometer for each worker, for the pay of the epoch."""
    items = tuple(party.announces(epoch_event_id(EXAMPLES.round_id, key), 4, LIMITS.attest_by.__class__(maturity), key) for key in LISTED)
    return m.OracleAnnouncements(EXAMPLES.run, EXAMPLES.round_id, 1, items)


def ends(node: Node) -> int:
    return epoch_ends(node.run, node.round)
