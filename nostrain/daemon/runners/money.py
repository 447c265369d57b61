"""Lightning. A payment that was begun is joined, never repeated; its error is unknown until the node says otherwise."""

from __future__ import annotations

from nostrain.core.effects import Cancel, Failed, HoldInvoice, Invoiced, Ok, Outcome, Pay, PayEnded, Settle
from nostrain.daemon.ports import Ports
from nostrain.errors import LocalProtocolError


async def run(effect: HoldInvoice | Pay | Settle | Cancel, ports: Ports) -> Outcome:
    """Raises Unavailable, OutcomeUnknown (Pay only)."""
    lightning = ports.lightning
    if lightning is None:
        raise LocalProtocolError("a payment to make, and no Lightning node")
    match effect:
        case HoldInvoice():
            bolt11 = await lightning.hold_invoice(effect.payment_hash, effect.amount_msat, effect.min_final_cltv, effect.expiry_s)
            return Invoiced(bolt11)
        case Pay():
            result = await lightning.pay(effect.bolt11, effect.payment_hash, effect.amount_msat)
            return PayEnded(result.preimage)
        case Settle():
            return await settle_or_fail(effect, ports)
        case Cancel():
            await lightning.cancel(effect.payment_hash)
            return Ok()


async def settle_or_fail(effect: Settle, ports: Ports) -> Outcome:
    """An invoice that is not accepted any more (expired, cancelled by its node) is a level lost, not a crash."""
    assert ports.lightning is not None
    try:
        await ports.lightning.settle(effect.preimage)
    except LocalProtocolError as error:
        return Failed(str(error))
    return Ok()
