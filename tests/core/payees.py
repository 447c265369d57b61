"""The payee of the examples' escrow, brought to each of its stages."""

from __future__ import annotations

from nostrain.core.effects import (
    CheckLocks,
    Draw,
    Drawn,
    HoldInvoice,
    Invoiced,
    Ok,
    Unlock,
)
from nostrain.core.escrow.rows import Payee
from nostrain.core.tables import PayeeState
from nostrain.core.timing import RELEASE_WAIT_S
from nostrain.daemon.runners import locks
from tests.core.actors import EXAMPLES, HEIGHT, LABELS, LIMITS, MESSAGES, Node, until
from tests.docs.examples import WORKERS

Y = PayeeState
WORKER = WORKERS[0]
KEY = f"payee/{EXAMPLES.round_id}"
MSAT = EXAMPLES.manifest.level_msat
CHOSEN = "".join(f"{n:08x}" for n in EXAMPLES.chosen)
"""The entropy that makes the choice of the examples."""
GRACE = EXAMPLES.manifest.timing.grace_s
RELEASE_BY = LIMITS.attest_by + GRACE + RELEASE_WAIT_S


def payee(heard: str = "oracle announcements 2") -> Node:
    """A worker that knows the block height, long after its start."""
    node = Node(WORKER, "worker")
    node.hear(until(heard)).block()
    return node.at(8)


def row(node: Node) -> Payee:
    return node.row(KEY, Payee)


def states(node: Node) -> list[PayeeState]:
    return [level.state for level in row(node).levels]


def chosen(node: Node | None = None) -> Node:
    """The offer came, the choice is made."""
    node = (node or payee()).hear([MESSAGES["offer"]])
    node.ends(node.asked(Draw, "choice"), Drawn(CHOSEN))
    return node


def checked() -> Node:
    """The openings stood up to the check."""
    node = chosen().hear([MESSAGES["openings"]])
    effect = node.asked(CheckLocks)
    outcome = locks.run(effect)
    assert outcome == Ok()
    node.ends(effect, outcome)
    return node


def invoiced() -> Node:
    """The invoices are made and sent."""
    node = checked()
    for effect in node.asks(HoldInvoice):
        node.ends(effect, Invoiced(f"lnfake:{effect.payment_hash}"))
    node.speak()
    return node


def held(expiry: int = HEIGHT + 80) -> Node:
    """Every level is held."""
    node = invoiced()
    for level in row(node).levels:
        assert level.lock is not None
        node.held(level.lock.payment_hash, MSAT, expiry)
    return node


def attested(*validators: int, node: Node | None = None) -> Node:
    """The round went on, and these validators attested (the first worker reached the highest level)."""
    node = node or held()
    heard = LABELS[LABELS.index("commitment 0") : LABELS.index("attestation 0")]
    return node.hear([*(MESSAGES[label] for label in heard), *(MESSAGES[f"attestation {n}"] for n in validators)])


def releasable() -> Node:
    """Two attestations are enough."""
    node = attested(0, 1)
    for effect in node.asks(Unlock):
        node.ends(effect, locks.run(effect))
    return node
