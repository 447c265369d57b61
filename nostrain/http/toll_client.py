"""Pays other servers for single requests, by L402 or by BUD-07, each at most once through crashes and lost answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Final

import msgspec
import trio

from nostrain.crypto.caveats import is_grant
from nostrain.errors import LocalProtocolError, OutcomeUnknown, RemoteProtocolError, Unavailable
from nostrain.ports.tickets import TicketPayer
from nostrain.ports.tolls import Errand, TollPurchase, TollWallet
from nostrain.units import Msat, is_hex32
from nostrain.wire.bolt11 import Bolt11, parse_bolt11_untrusted
from nostrain.wire.l402 import format_authorization, parse_challenges_untrusted

_SEVERAL: Final = 4
"""Values of one header that are looked at."""


class TollPurse:
    """`ports.tolls.TollPayer`: pays at most `ceiling_msat` for one errand. The purchase is written down before it is paid.

    Downloads are paid by L402 where it is offered, else by BUD-07. Uploads the other way round: there `Authorization` is the uploader's key's,
    and has to make way for the token. A token that is a round's ticket is not bought here: it would pay for one upload what the round costs.
    """

    def __init__(self, payer: TicketPayer, wallet: TollWallet, ceiling_msat: Msat) -> None:
        self._payer, self._wallet, self._ceiling = payer, wallet, ceiling_msat
        self._buying: dict[Errand, trio.Lock] = {}

    async def show(self, errand: Errand) -> dict[str, str]:
        """As the port."""
        purchase = await self._wallet.load(errand)
        if purchase is None or purchase.preimage is None:
            return {}
        if purchase.macaroon is None:
            return {"X-Lightning": purchase.preimage}
        return {"Authorization": format_authorization(purchase.macaroon, purchase.preimage)}

    async def pay(self, errand: Errand, demanded: Sequence[tuple[str, str]]) -> None:
        """As the port. Cancellation is safe: calling again continues where this stopped."""
        lock = self._buying.setdefault(errand, trio.Lock())
        try:
            async with lock:
                await self._pay(errand, demanded)
        finally:
            if not lock.locked() and not lock.statistics().tasks_waiting:
                self._buying.pop(errand, None)

    async def used(self, errand: Errand) -> None:
        """As the port."""
        await self._wallet.forget(errand)

    async def _pay(self, errand: Errand, demanded: Sequence[tuple[str, str]]) -> None:
        purchase = await self._wallet.load(errand)
        if purchase is not None and purchase.preimage is not None:
            raise RemoteProtocolError("toll", "the server asks again for what was paid", whose=errand.url)
        if purchase is None:
            purchase = self._choose(errand, demanded)
            await self._wallet.save(purchase)
        terms = parse_bolt11_untrusted(purchase.invoice)
        try:
            result = await self._payer.pay(purchase.invoice, terms.payment_hash, self._price(errand, terms))
        except OutcomeUnknown as error:
            raise Unavailable(f"the payment for {errand.url} may have been made; it is asked for, not repeated") from error
        if result.preimage is None:
            await self._wallet.forget(errand)
            raise Unavailable(f"the payment for {errand.url} failed, and the money is back")
        if not is_hex32(result.preimage) or sha256(bytes.fromhex(result.preimage)).hexdigest() != terms.payment_hash:
            raise LocalProtocolError("toll: our payer says paid, and shows another payment's preimage")
        await self._wallet.save(msgspec.structs.replace(purchase, preimage=result.preimage))

    def _choose(self, errand: Errand, demanded: Sequence[tuple[str, str]]) -> TollPurchase:
        """What to buy, checked before any money moves. Raises RemoteProtocolError."""
        challenges = [value for name, value in demanded if name.lower() == "www-authenticate"][:_SEVERAL]
        invoices = [value.strip().strip('"') for name, value in demanded if name.lower() == "x-lightning"][:_SEVERAL]
        fault: RemoteProtocolError | None = None
        offers: list[Callable[[], TollPurchase]] = [lambda: self._l402(errand, challenges)] if challenges else []
        offers += [lambda: self._bud07(errand, invoices[0])] if invoices else []
        for offer in offers if errand.method == "GET" else reversed(offers):
            try:
                return offer()
            except RemoteProtocolError as error:
                fault = fault or error
        raise fault or RemoteProtocolError("toll", "payment is required, and there is no invoice that we can pay", whose=errand.url)

    def _l402(self, errand: Errand, challenges: list[str]) -> TollPurchase:
        challenge = parse_challenges_untrusted(challenges)
        terms = parse_bolt11_untrusted(challenge.invoice)
        if terms.payment_hash != challenge.identifier.payment_hash.hex():
            raise RemoteProtocolError("toll", "the invoice is not the one that the token is sold for", whose=errand.url)
        if is_grant(challenge.macaroon.caveats):
            raise RemoteProtocolError("toll", "a round's ticket is asked for, which is not bought here", whose=errand.url)
        self._price(errand, terms)
        return TollPurchase(errand, challenge.invoice, challenge.text)

    def _bud07(self, errand: Errand, invoice: str) -> TollPurchase:
        self._price(errand, parse_bolt11_untrusted(invoice))
        return TollPurchase(errand, invoice, None)

    def _price(self, errand: Errand, terms: Bolt11) -> Msat:
        """What the invoice asks for, if we are ready to pay that. Raises RemoteProtocolError."""
        if terms.amount_msat is None or terms.amount_msat > self._ceiling:
            reason = f"costs {terms.amount_msat} msat, {self._ceiling} is the most that we pay"
            raise RemoteProtocolError("toll", reason, whose=errand.url)
        return Msat(terms.amount_msat)
