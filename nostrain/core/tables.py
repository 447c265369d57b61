"""The states of every machine and the legal transitions between them. `docs/states.md` is generated from these tables."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final, TypeVar

from nostrain.errors import IllegalTransition


class RoundPhase(Enum):
    """Phases of a round: a fold of public events, the same for everyone."""

    OPEN = "open"
    RECEIPTED = "receipted"
    REVEALING = "revealing"
    VALIDATING = "validating"
    ATTESTING = "attesting"
    AGGREGATED = "aggregated"
    ABORTED = "aborted"


class SubmissionState(Enum):
    """A worker's own submission in a round. TICKETED comes with the L402 fee."""

    PREPARING = "preparing"
    TRAINING = "training"
    TRAINED = "trained"
    COMMITTED = "committed"
    UPLOADING = "uploading"
    REVEALED = "revealed"
    ACCEPTED = "accepted"
    REFUSED = "refused"


class AheadState(Enum):
    """A worker's training for one round of a delayed run, which begins before the round is announced."""

    PREPARING = "preparing"
    TRAINING = "training"
    TRAINED = "trained"
    FAILED = "failed"


class DutyState(Enum):
    """A validator's work in a round."""

    ANNOUNCING = "announcing"
    ANNOUNCED = "announced"
    ACKNOWLEDGED = "acknowledged"
    EVALUATING = "evaluating"
    HASHED = "hashed"
    OPENED = "opened"
    ATTESTING = "attesting"
    ATTESTED = "attested"
    SILENT = "silent"


class EpochState(Enum):
    """A validator's work for the pay of an epoch of several rounds."""

    ANNOUNCING = "announcing"
    ANNOUNCED = "announced"
    ATTESTING = "attesting"
    ATTESTED = "attested"
    SILENT = "silent"


class LeadState(Enum):
    """A coordinator's work in a round."""

    COLLECTING = "collecting"
    RECEIPTED = "receipted"
    AGGREGATING = "aggregating"
    CLOSED = "closed"


class PayerState(Enum):
    """A payer's side of one level."""

    DRAWN = "drawn"
    OFFERED = "offered"
    INVOICED = "invoiced"
    PAYING = "paying"
    PAID = "paid"
    FAILED = "failed"


class PayeeState(Enum):
    """A payee's side of one level."""

    OFFERED = "offered"
    CHECKED = "checked"
    INVOICED = "invoiced"
    HELD = "held"
    RELEASABLE = "releasable"
    SETTLING = "settling"
    SETTLED = "settled"
    CANCELLED = "cancelled"


class SuspicionState(Enum):
    """Evidence that we hold against somebody."""

    PROVING = "proving"
    PROVED = "proved"
    DISPUTED = "disputed"
    DROPPED = "dropped"


class ComplaintState(Enum):
    """A dispute of anyone's, as we see it. One whose evidence was not to be had begins anew when it is said again."""

    QUEUED = "queued"
    PROVEN = "proven"
    REFUTED = "refuted"
    UNHEARD = "unheard"


class ShareState(Enum):
    """One payment of a validator's share of the fees, to its offer."""

    FETCHING = "fetching"
    PAYING = "paying"
    PAID = "paid"
    FAILED = "failed"


class OpeningState(Enum):
    """A channel that a coordinator opens to a worker by policy."""

    OPENING = "opening"
    OPENED = "opened"
    FAILED = "failed"


class WithdrawalState(Enum):
    """Money of our own on its way from our channels, or from our wallet, to the operator's address."""

    SPLICING = "splicing"
    SPLICED = "spliced"
    PREPARING = "preparing"
    SENDING = "sending"
    SENT = "sent"
    FAILED = "failed"


class ReplicaState(Enum):
    """Our own copy of the model's state."""

    BOOTING = "booting"
    READY = "ready"
    ADVANCING = "advancing"
    LEAPING = "leaping"
    DIVERGED = "diverged"


R, S, D, E, L = RoundPhase, SubmissionState, DutyState, EpochState, LeadState
P, Y, H, C = PayerState, PayeeState, ShareState, ReplicaState
U, K = SuspicionState, ComplaintState
N, W, A = OpeningState, WithdrawalState, AheadState

ROUND: Final[Mapping[Enum, frozenset[Enum]]] = {
    R.OPEN: frozenset({R.RECEIPTED, R.ABORTED}),
    R.RECEIPTED: frozenset({R.REVEALING, R.ABORTED}),
    R.REVEALING: frozenset({R.VALIDATING, R.ABORTED}),
    R.VALIDATING: frozenset({R.ATTESTING, R.ABORTED}),
    R.ATTESTING: frozenset({R.AGGREGATED, R.ABORTED}),
    R.AGGREGATED: frozenset(),
    R.ABORTED: frozenset(),
}
SUBMISSION: Final[Mapping[Enum, frozenset[Enum]]] = {
    S.PREPARING: frozenset({S.TRAINING, S.REFUSED}),
    S.TRAINING: frozenset({S.TRAINED, S.REFUSED}),
    S.TRAINED: frozenset({S.COMMITTED, S.REFUSED}),
    S.COMMITTED: frozenset({S.UPLOADING, S.REFUSED}),
    S.UPLOADING: frozenset({S.REVEALED, S.REFUSED}),
    S.REVEALED: frozenset({S.ACCEPTED, S.REFUSED}),
    S.ACCEPTED: frozenset(),
    S.REFUSED: frozenset(),
}
AHEAD: Final[Mapping[Enum, frozenset[Enum]]] = {
    A.PREPARING: frozenset({A.TRAINING, A.FAILED}),
    A.TRAINING: frozenset({A.TRAINED, A.FAILED}),
    A.TRAINED: frozenset(),
    A.FAILED: frozenset(),
}
DUTY: Final[Mapping[Enum, frozenset[Enum]]] = {
    D.ANNOUNCING: frozenset({D.ANNOUNCED, D.SILENT}),
    D.ANNOUNCED: frozenset({D.ACKNOWLEDGED, D.SILENT}),
    D.ACKNOWLEDGED: frozenset({D.EVALUATING, D.SILENT}),
    D.EVALUATING: frozenset({D.HASHED, D.SILENT}),
    D.HASHED: frozenset({D.OPENED, D.SILENT}),
    D.OPENED: frozenset({D.ATTESTING, D.SILENT}),
    D.ATTESTING: frozenset({D.ATTESTED, D.SILENT}),
    D.ATTESTED: frozenset(),
    D.SILENT: frozenset(),
}
EPOCH: Final[Mapping[Enum, frozenset[Enum]]] = {
    E.ANNOUNCING: frozenset({E.ANNOUNCED, E.SILENT}),
    E.ANNOUNCED: frozenset({E.ATTESTING, E.SILENT}),
    E.ATTESTING: frozenset({E.ATTESTED, E.SILENT}),
    E.ATTESTED: frozenset(),
    E.SILENT: frozenset(),
}
LEAD: Final[Mapping[Enum, frozenset[Enum]]] = {
    L.COLLECTING: frozenset({L.RECEIPTED, L.CLOSED}),
    L.RECEIPTED: frozenset({L.AGGREGATING, L.CLOSED}),
    L.AGGREGATING: frozenset({L.CLOSED}),
    L.CLOSED: frozenset(),
}
PAYER: Final[Mapping[Enum, frozenset[Enum]]] = {
    P.DRAWN: frozenset({P.OFFERED, P.FAILED}),
    P.OFFERED: frozenset({P.INVOICED, P.FAILED}),
    P.INVOICED: frozenset({P.PAYING, P.FAILED}),
    P.PAYING: frozenset({P.PAID, P.FAILED}),
    P.PAID: frozenset(),
    P.FAILED: frozenset(),
}
PAYEE: Final[Mapping[Enum, frozenset[Enum]]] = {
    Y.OFFERED: frozenset({Y.CHECKED, Y.CANCELLED}),
    Y.CHECKED: frozenset({Y.INVOICED, Y.CANCELLED}),
    Y.INVOICED: frozenset({Y.HELD, Y.CANCELLED}),
    Y.HELD: frozenset({Y.RELEASABLE, Y.CANCELLED}),
    Y.RELEASABLE: frozenset({Y.SETTLING, Y.CANCELLED}),
    Y.SETTLING: frozenset({Y.SETTLED, Y.CANCELLED}),
    Y.SETTLED: frozenset(),
    Y.CANCELLED: frozenset(),
}
SHARE: Final[Mapping[Enum, frozenset[Enum]]] = {
    H.FETCHING: frozenset({H.PAYING, H.FAILED}),
    H.PAYING: frozenset({H.PAID, H.FAILED}),
    H.PAID: frozenset(),
    H.FAILED: frozenset(),
}
OPENING: Final[Mapping[Enum, frozenset[Enum]]] = {
    N.OPENING: frozenset({N.OPENED, N.FAILED}),
    N.OPENED: frozenset(),
    N.FAILED: frozenset(),
}
WITHDRAWAL: Final[Mapping[Enum, frozenset[Enum]]] = {
    W.SPLICING: frozenset({W.SPLICED, W.FAILED}),
    W.SPLICED: frozenset({W.PREPARING}),
    W.PREPARING: frozenset({W.SENDING, W.FAILED}),
    W.SENDING: frozenset({W.SENT, W.FAILED}),
    W.SENT: frozenset(),
    W.FAILED: frozenset(),
}
REPLICA: Final[Mapping[Enum, frozenset[Enum]]] = {
    C.BOOTING: frozenset({C.READY, C.LEAPING, C.DIVERGED}),
    C.READY: frozenset({C.ADVANCING, C.LEAPING, C.DIVERGED}),
    C.ADVANCING: frozenset({C.READY, C.LEAPING, C.DIVERGED}),
    C.LEAPING: frozenset({C.BOOTING, C.READY, C.DIVERGED}),
    C.DIVERGED: frozenset(),
}
SUSPICION: Final[Mapping[Enum, frozenset[Enum]]] = {
    U.PROVING: frozenset({U.PROVED, U.DROPPED}),
    U.PROVED: frozenset({U.DISPUTED, U.DROPPED}),
    U.DISPUTED: frozenset(),
    U.DROPPED: frozenset(),
}
COMPLAINT: Final[Mapping[Enum, frozenset[Enum]]] = {
    K.QUEUED: frozenset({K.PROVEN, K.REFUTED, K.UNHEARD}),
    K.PROVEN: frozenset(),
    K.REFUTED: frozenset(),
    K.UNHEARD: frozenset(),
}

MACHINES: Final[Mapping[str, Mapping[Enum, frozenset[Enum]]]] = {
    "round": ROUND,
    "submission": SUBMISSION,
    "ahead": AHEAD,
    "duty": DUTY,
    "epoch": EPOCH,
    "lead": LEAD,
    "payer": PAYER,
    "payee": PAYEE,
    "share": SHARE,
    "opening": OPENING,
    "withdrawal": WITHDRAWAL,
    "replica": REPLICA,
    "suspicion": SUSPICION,
    "complaint": COMPLAINT,
}

State = TypeVar("State", bound=Enum)


def advance(machine: str, old: State, new: State) -> State:
    """`new`, if the table of `machine` allows it after `old` (or they are equal). Raises IllegalTransition otherwise."""
    if new is not old and new not in MACHINES[machine][old]:
        raise IllegalTransition(f"{machine}: {old.name} → {new.name} is not a transition")
    return new
