"""What becomes of an HTLC that is offered for a hold invoice. Pure: no clock, no database, no lightningd.

States are those of BoltzExchange/hold; what a final node has to check is BOLT 4's, with its single failure code for whatever does not fit, so that
nobody can probe for the difference. The answer to an HTLC follows from the invoice alone: whichever process holds it gives the same one, however
often lightningd asks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from nostrain.errors import NostrainError
from nostrain.units import BlockHeight, Digest, Msat, UnixTime

OVERPAYMENT_FACTOR: Final = 2
"""A payer may send up to twice the amount (BOLT 4)."""


class State(Enum):
    """Of an invoice; an HTLC has the same ones, without `unpaid`."""

    UNPAID = "unpaid"
    ACCEPTED = "accepted"
    PAID = "paid"
    CANCELLED = "cancelled"


class Failure(Enum):
    """Why an HTLC is failed, in the words of BOLT 4."""

    DETAILS = "incorrect_or_unknown_payment_details"
    MPP_TIMEOUT = "mpp_timeout"


class Refused(NostrainError):
    """A method asks for what the invoice's state forbids; nothing has changed. Its text is the reply's."""


@dataclass(frozen=True)
class Settings:
    """The options. Blocks before its expiry at which an HTLC is cancelled and no more settled; seconds that a set of parts may take."""

    expiry_deadline: int = 24
    mpp_timeout_s: int = 60


@dataclass(frozen=True)
class Key:
    """An HTLC's identity: its number on its channel, and the hash of its onion's shared secret.

    Not the channel's id: that changes when an alias becomes a real one, and with a splice, while the HTLC is held.
    """

    number: int
    onion: Digest


@dataclass(frozen=True)
class Offer:
    """An HTLC as the hook tells of it: for us, so it has no next hop. Heights are absolute, `height` is lightningd's when it asked."""

    key: Key
    scid: str
    payment_hash: Digest
    amount_msat: Msat
    cltv_expiry: BlockHeight
    height: BlockHeight
    payment_secret: str | None
    total_msat: Msat | None
    forward_msat: Msat
    outgoing_cltv: BlockHeight


@dataclass(frozen=True)
class Htlc:
    """An HTLC that was taken for an invoice."""

    key: Key
    scid: str
    amount_msat: Msat
    total_msat: Msat
    cltv_expiry: BlockHeight
    received_at: UnixTime
    state: State = State.ACCEPTED
    failure: Failure = Failure.DETAILS


@dataclass(frozen=True)
class Invoice:
    """A hold invoice and the HTLCs that were taken for it. `min_cltv` is what counts, whether the invoice says so or whoever injected it."""

    payment_hash: Digest
    payment_secret: str
    amount_msat: Msat
    min_cltv: int
    expires_at: UnixTime
    state: State = State.UNPAID
    preimage: str | None = None
    htlcs: tuple[Htlc, ...] = ()

    @property
    def held(self) -> tuple[Htlc, ...]:
        """The HTLCs that are neither settled nor failed."""
        return tuple(htlc for htlc in self.htlcs if htlc.state is State.ACCEPTED)

    @property
    def held_msat(self) -> Msat:
        """Their sum."""
        return Msat(sum(htlc.amount_msat for htlc in self.held))

    @property
    def next_expiry(self) -> BlockHeight | None:
        """The height at which the first of them runs out."""
        return min((htlc.cltv_expiry for htlc in self.held), default=None)

    def find(self, key: Key) -> Htlc | None:
        """The HTLC, if it was taken."""
        return next((htlc for htlc in self.htlcs if htlc.key == key), None)


@dataclass(frozen=True)
class Hold:
    """No answer yet."""


@dataclass(frozen=True)
class Resolve:
    """Claim the HTLC."""

    preimage: str


@dataclass(frozen=True)
class Fail:
    """Send the HTLC back."""

    failure: Failure


Answer = Hold | Resolve | Fail


def answer(invoice: Invoice, key: Key) -> Answer:
    """What the hook is told about an HTLC: one that was not taken is failed."""
    htlc = invoice.find(key)
    if htlc is None:
        return Fail(Failure.DETAILS)
    if htlc.state is State.ACCEPTED:
        return Hold()
    if htlc.state is State.PAID and invoice.preimage is not None:
        return Resolve(invoice.preimage)
    return Fail(htlc.failure)


def receive(invoice: Invoice, offer: Offer, deadline: int, now: UnixTime) -> Invoice:
    """Take the HTLC if it fits; one that is known already, or does not fit, changes nothing. A set that is whole is accepted."""
    total_msat = offer.total_msat
    if invoice.find(offer.key) is not None or total_msat is None or not _fits(invoice, offer, total_msat, deadline, now):
        return invoice
    taken = Htlc(offer.key, offer.scid, offer.amount_msat, total_msat, offer.cltv_expiry, now)
    invoice = replace(invoice, htlcs=(*invoice.htlcs, taken))
    return replace(invoice, state=State.ACCEPTED) if invoice.held_msat >= total_msat else invoice


def _fits(invoice: Invoice, offer: Offer, total_msat: Msat, deadline: int, now: UnixTime) -> bool:
    """BOLT 4, "Requirements for a final node", and that there is time to hold it."""
    return (
        invoice.state is State.UNPAID
        and now < invoice.expires_at
        and offer.payment_secret == invoice.payment_secret
        and invoice.amount_msat <= total_msat <= invoice.amount_msat * OVERPAYMENT_FACTOR
        and all(htlc.total_msat == total_msat for htlc in invoice.held)
        and 0 < offer.amount_msat <= invoice.amount_msat * OVERPAYMENT_FACTOR - invoice.held_msat
        and offer.amount_msat >= offer.forward_msat
        and offer.cltv_expiry >= offer.outgoing_cltv
        and offer.cltv_expiry - offer.height >= max(invoice.min_cltv, deadline + 1)
    )


def settle(invoice: Invoice, preimage: str, height: BlockHeight, deadline: int) -> Invoice:
    """Claim the whole set. Raises Refused: nothing whole is held, or an HTLC of it is `deadline` blocks from its expiry, or nearer."""
    if invoice.state is State.PAID:
        return invoice
    expiry = invoice.next_expiry
    if invoice.state is not State.ACCEPTED or expiry is None:
        raise Refused(f"no HTLCs to settle: the invoice is {invoice.state.value}")
    if expiry - height <= deadline:
        raise Refused(
            f"too late to settle: an HTLC expires at height {expiry}, it is {height}, and the last {deadline} blocks are for cancelling"
        )
    return replace(_all(invoice, State.PAID), preimage=preimage)


def cancel(invoice: Invoice) -> Invoice:
    """Fail what is held and close the invoice. Raises Refused if it is paid."""
    if invoice.state is State.PAID:
        raise Refused("could not update invoice in database: state paid is final")
    return invoice if invoice.state is State.CANCELLED else _all(invoice, State.CANCELLED)


def expire(invoice: Invoice, height: BlockHeight, deadline: int) -> Invoice:
    """Cancel it if one of its HTLCs is `deadline` blocks from its expiry, or nearer."""
    expiry = invoice.next_expiry
    return invoice if expiry is None or expiry - height > deadline else cancel(invoice)


def time_out(invoice: Invoice, timeout_s: int, now: UnixTime) -> Invoice:
    """Fail the parts of a payment whose rest did not come within `timeout_s` of the first; it may be tried again."""
    if invoice.state is not State.UNPAID or not invoice.held or now - min(htlc.received_at for htlc in invoice.held) < timeout_s:
        return invoice
    return _failed(invoice, invoice.held, Failure.MPP_TIMEOUT)


def lose(invoice: Invoice, gone: frozenset[Key]) -> Invoice:
    """Held HTLCs that lightningd does not have any more. A set that was whole is not: it is cancelled, and cannot be settled for less."""
    lost = tuple(htlc for htlc in invoice.held if htlc.key in gone)
    if not lost:
        return invoice
    return cancel(invoice) if invoice.state is State.ACCEPTED else _failed(invoice, lost, Failure.DETAILS)


def _all(invoice: Invoice, state: State) -> Invoice:
    held = frozenset(htlc.key for htlc in invoice.held)
    return replace(invoice, state=state, htlcs=tuple(replace(htlc, state=state) if htlc.key in held else htlc for htlc in invoice.htlcs))


def _failed(invoice: Invoice, which: tuple[Htlc, ...], failure: Failure) -> Invoice:
    keys = frozenset(htlc.key for htlc in which)
    htlcs = (replace(htlc, state=State.CANCELLED, failure=failure) if htlc.key in keys else htlc for htlc in invoice.htlcs)
    return replace(invoice, htlcs=tuple(htlcs))
