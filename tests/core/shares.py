"""The coordinator of the examples' round once that is closed, and what it owes to its validators."""

from __future__ import annotations

from nostrain.units import Msat
from tests.core.actors import EXAMPLES, ROUND, Node
from tests.docs.examples import COORDINATOR, VALIDATORS

KEYS = tuple(party.pubkey for party in VALIDATORS)
FEE, LEVELS = EXAMPLES.manifest.settlement.fee_msat, 3
EACH = Msat(LEVELS * FEE // 2 // len(VALIDATORS))


def closed() -> Node:
    """The coordinator when the round of the examples is closed."""
    return Node(COORDINATOR, "coordinator").hear(ROUND)
