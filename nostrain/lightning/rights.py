"""What the client asks of lightningd, as a table, and the rune that allows this and nothing else (`createrune`).

A rune is a list of restrictions which all must hold; each is a list of alternatives, one of which must. `method/x` holds for every method but x,
`pnamey` is the parameter y, `pnamey!` holds without it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from enum import Enum
from typing import Final, NamedTuple

MSAT_PER_SAT: Final = 1000


class Use(Enum):
    """What a node is for."""

    READ = "look at the node and its channels"
    PAY = "pay invoices"
    FETCH = "pay offers of others"
    INVOICE = "be paid by ordinary invoices"
    HOLD = "be paid by hold invoices"
    OFFER = "have an offer of its own"
    OPEN = "open channels"
    WITHDRAW = "withdraw what accumulates"


class Right(NamedTuple):
    """One method: what it is needed for, and what its parameters always are."""

    method: str
    uses: frozenset[Use]
    always: tuple[str, ...] = ()


def right(method: str, *uses: Use, always: Sequence[str] = ()) -> Right:
    """A row of the table."""
    return Right(method, frozenset(uses), tuple(always))


RIGHTS: Final = (
    right("getinfo", Use.READ),
    right("waitblockheight", Use.READ),
    right("listpeerchannels", Use.READ),
    right("listsendpays", Use.PAY, Use.FETCH),
    right("waitsendpay", Use.PAY, Use.FETCH),
    right("wait", Use.PAY, Use.FETCH, always=("pnamesubsystem=sendpays",)),
    right("getlog", Use.PAY, Use.FETCH, always=("pnamelevel=broken",)),
    right("xpay", Use.PAY, Use.FETCH),
    right("pay", Use.PAY, Use.FETCH),
    right("sendpay", Use.PAY, always=("pnamegroupid=1", "pnamepartid=0")),
    right("fetchinvoice", Use.FETCH),
    right("invoice", Use.INVOICE),
    right("listinvoices", Use.INVOICE, Use.HOLD),
    right("waitanyinvoice", Use.INVOICE, Use.OFFER),
    right("signinvoice", Use.HOLD),
    right("listholdinvoices", Use.HOLD),
    right("injectholdinvoice", Use.HOLD),
    right("settleholdinvoice", Use.HOLD),
    right("cancelholdinvoice", Use.HOLD),
    right("offer", Use.OFFER, always=("pnameamount=any",)),
    right("listoffers", Use.OFFER),
    right("listfunds", Use.OPEN, Use.WITHDRAW),
    right("listtransactions", Use.OPEN, Use.WITHDRAW),
    right("connect", Use.OPEN),
    right("fundchannel", Use.OPEN),
    right("fundchannel_cancel", Use.OPEN),
    right("spliceout", Use.WITHDRAW, always=("pnamedestination!",)),
    right("txprepare", Use.WITHDRAW),
    right("signpsbt", Use.WITHDRAW),
    right("txdiscard", Use.WITHDRAW),
    right("sendpsbt", Use.WITHDRAW),
    right("reserveinputs", Use.WITHDRAW),
)
"""Every method that the code of this package calls, and no other."""

AMOUNTS: Final = {"sendpay": "pnameamount_msat", "xpay": "pinvinvstring_amount", "pay": "pinvbolt11_amount"}
"""What says how much a payment is; the fields of invoices are known to lightningd since 24.05."""


def restrictions(uses: Collection[Use], max_payment_sat: int | None = None) -> list[list[str]]:
    """The second parameter of `createrune` for a node with these uses, which pays at most so much at a time (fees of routing come on top)."""
    allowed = [row for row in RIGHTS if row.uses & set(uses)]
    rules = [[f"method={row.method}" for row in allowed]]
    rules += [[f"method/{row.method}", condition] for row in allowed for condition in row.always]
    if max_payment_sat is not None:
        above = max_payment_sat * MSAT_PER_SAT + 1
        rules += [[f"method/{row.method}", f"{AMOUNTS[row.method]}<{above}"] for row in allowed if row.method in AMOUNTS]
    return rules
