"""Lightning. A payment that was begun is joined, never repeated; its error is unknown until the node says otherwise."""

from __future__ import annotations

from nostrain.core.effects import (
    BuyTicket,
    Cancel,
    Failed,
    FetchInvoice,
    FindTicket,
    HoldInvoice,
    Invoiced,
    InvoiceFetched,
    MakeOffer,
    OfferMade,
    Ok,
    Outcome,
    Pay,
    PayEnded,
    PayInvoice,
    Settle,
    TicketBought,
    TicketFound,
)
from nostrain.daemon.ports import Ports
from nostrain.errors import LocalProtocolError
from nostrain.ports.lightning import Lightning
from nostrain.units import Msat
from nostrain.wire.messages import payout_untrusted

MoneyEffect = HoldInvoice | BuyTicket | FindTicket | Pay | Settle | Cancel | MakeOffer | FetchInvoice | PayInvoice


async def run(effect: MoneyEffect, ports: Ports) -> Outcome:
    """Raises Unavailable, OutcomeUnknown (Pay, PayInvoice, BuyTicket and FindTicket), RemoteProtocolError (BuyTicket and FetchInvoice)."""
    if isinstance(effect, BuyTicket | FindTicket):
        return await buy(effect, ports)
    lightning = ports.lightning
    if lightning is None:
        raise LocalProtocolError("a payment to make, and no Lightning node")
    match effect:
        case Pay():
            result = await lightning.pay(effect.bolt11, effect.payment_hash, effect.amount_msat)
            return PayEnded(result.preimage)
        case PayInvoice():
            result = await lightning.pay_fetched(effect.bolt12, effect.payment_hash, effect.amount_msat)
            return PayEnded(result.preimage)
        case FetchInvoice():
            fetched = await lightning.fetch_invoice(effect.offer, effect.amount_msat)
            return InvoiceFetched(fetched.bolt12, fetched.payment_hash)
        case MakeOffer():
            return await offer(effect, lightning)
        case _:
            return await invoice(effect, lightning)


async def buy(effect: BuyTicket | FindTicket, ports: Ports) -> Outcome:
    """Our ticket, or what was paid for it: the buyer has its own memory of what was paid, and asks before it pays."""
    if ports.tickets is None:
        raise LocalProtocolError("a ticket to buy, and nobody to buy it")
    if isinstance(effect, FindTicket):
        paid = await ports.tickets.find_payment(effect.announcement)
        return TicketFound(None, Msat(0), claimed=False) if paid is None else TicketFound(paid.payment_hash, paid.amount_msat, paid.claimed)
    ticket = await ports.tickets.buy_ticket(effect.server, effect.run, effect.announcement, effect.size, effect.ceiling_msat)
    return TicketBought(ticket.token, ticket.payment_hash)


async def offer(effect: MakeOffer, lightning: Lightning) -> Outcome:
    """Our own offer, read as everyone will who reads our enrolment. One that they would refuse, or that our node will not make, is `Failed`."""
    try:
        return OfferMade(payout_untrusted(await lightning.offer(effect.description)))
    except LocalProtocolError as error:
        return Failed(str(error))


async def invoice(effect: HoldInvoice | Settle | Cancel, lightning: Lightning) -> Outcome:
    """What the node will not do is a level lost, not a crash: the payer chose the hash, and may have used it before; invoices expire."""
    try:
        match effect:
            case HoldInvoice():
                bolt11 = await lightning.hold_invoice(effect.payment_hash, effect.amount_msat, effect.min_final_cltv, effect.expiry_s)
                return Invoiced(bolt11)
            case Settle():
                await lightning.settle(effect.preimage)
            case Cancel():
                await lightning.cancel(effect.payment_hash)
    except LocalProtocolError as error:
        return Failed(str(error))
    return Ok()
