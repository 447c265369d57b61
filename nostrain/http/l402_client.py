"""Buys tickets from another node's paywall, each at most once, through crashes and lost answers."""

from __future__ import annotations

from hashlib import sha256
from typing import Final

import httpx
import msgspec
import trio

from nostrain.crypto.caveats import Grant, narrowed_to, read_grant_untrusted
from nostrain.crypto.macaroon import add_caveat
from nostrain.errors import LocalProtocolError, RemoteProtocolError, Unavailable
from nostrain.http.l402_identity import HEADER, make_identity
from nostrain.http.paywall import PATH
from nostrain.ports.clock import Clock
from nostrain.ports.signer import Signer
from nostrain.ports.tickets import PaidTicket, Purchase, PurchasePayer, Ticket, TicketWallet
from nostrain.units import Digest, EventId, Msat, is_hex32
from nostrain.wire.bolt11 import parse_bolt11_untrusted
from nostrain.wire.l402 import Challenge, encode_text, format_authorization, parse_challenges_untrusted, parse_token_untrusted

ANSWER_S: Final = 30.0
"""How long a server may take to answer one request."""

_MAX_ANSWER: Final = 16 * 1024
_FOR_GOOD: Final = frozenset({400, 401, 403, 405, 409, 410, 413})


class _Answer(msgspec.Struct):
    ticket: Ticket


class TicketClient:
    """Buys tickets for our key. `http` is the caller's; redirects are not followed. One purchase at a time for each round."""

    def __init__(self, http: httpx.AsyncClient, signer: Signer, clock: Clock, payer: PurchasePayer, wallet: TicketWallet) -> None:
        self._http, self._signer, self._clock, self._payer, self._wallet = http, signer, clock, payer, wallet

    async def buy_ticket(self, server: str, run: EventId, announcement: EventId, size: int, ceiling_msat: Msat) -> Ticket:
        """Our ticket for the round, for uploads of at least `size` bytes; `server` is the base URL of the node that sells it.

        Idempotent: what was bought or paid before is used, never paid again; a ticket that the server already knows costs nothing.
        Cancellation is safe at any time: calling again continues where this stopped.

        Raises:
            Unavailable: nothing is lost, try again; also when the payment failed for certain, and the next try gets a fresh invoice.
            OutcomeUnknown: the payment may or may not have been made; calling again asks, it does not pay twice.
            RemoteProtocolError: the server refuses for good, asks for more than `ceiling_msat`, or sells something else than was asked for.
        """
        purchase = await self._wallet.load(announcement)
        if purchase is not None and purchase.size < size:
            raise RemoteProtocolError("ticket", f"bought for {purchase.size} bytes, {size} are needed")
        if purchase is None:
            answer = await self._ask(server, announcement, size, None)
            if isinstance(answer, Ticket):
                return answer
            self._check(answer, Grant(run, announcement, self._signer.pubkey, size, 0), ceiling_msat)
            purchase = Purchase(announcement, size, answer.text, answer.invoice, server=server)
            await self._wallet.save(purchase)
        if purchase.ticket is not None:
            return purchase.ticket
        if purchase.preimage is None:
            purchase = await self._pay(purchase, ceiling_msat)
        assert purchase.preimage is not None
        shown = format_authorization(purchase.macaroon, purchase.preimage)
        ticket = await self._ask(server, announcement, purchase.size, shown)
        if not isinstance(ticket, Ticket):
            raise RemoteProtocolError("ticket", "the server asks again for what was paid", whose=server)
        await self._wallet.save(msgspec.structs.replace(purchase, ticket=ticket))
        return ticket

    async def find_payment(self, announcement: EventId) -> PaidTicket | None:
        """As `ports.tickets.TicketBuyer`."""
        purchase = await self._wallet.load(announcement)
        if purchase is None:
            return None
        invoice = parse_bolt11_untrusted(purchase.invoice)
        assert invoice.amount_msat is not None  # it was checked before it was saved
        if purchase.preimage is None:
            result = await self._payer.ended(purchase.invoice, invoice.payment_hash, invoice.amount_msat)
            if result.preimage is None:
                await self._wallet.forget(announcement)
                return None
            purchase = msgspec.structs.replace(purchase, preimage=result.preimage)
            await self._wallet.save(purchase)
        return PaidTicket(invoice.payment_hash, invoice.amount_msat, purchase.ticket is not None)

    async def show_ticket(self, announcement: EventId, server: str, digest: Digest) -> str | None:
        """As `ports.tickets.TicketShower`."""
        purchase = await self._wallet.load(announcement)
        if purchase is None or purchase.preimage is None or _origin(purchase.server) != _origin(server):
            return None
        macaroon = parse_token_untrusted(purchase.macaroon)
        for caveat in narrowed_to(digest, "PUT"):
            macaroon = add_caveat(macaroon, caveat)
        return format_authorization(encode_text(macaroon), purchase.preimage)

    def _check(self, challenge: Challenge, wanted: Grant, ceiling_msat: Msat) -> None:
        """That we are offered what we asked for, before any money moves."""
        offered = read_grant_untrusted(challenge.macaroon.caveats)
        if (offered.run, offered.round, offered.worker) != (wanted.run, wanted.round, wanted.worker):
            raise RemoteProtocolError("ticket", "the token is bound to another run, round or worker")
        if offered.size < wanted.size:
            raise RemoteProtocolError("ticket", f"the token is for {offered.size} bytes, not {wanted.size}")
        if offered.expires <= self._clock.now():
            raise RemoteProtocolError("ticket", "the token has expired before it is bought")
        self._price(challenge, ceiling_msat)

    def _price(self, challenge: Challenge, ceiling_msat: Msat) -> Msat:
        """What the invoice asks for, if it buys this very token and we are ready to pay that."""
        invoice = parse_bolt11_untrusted(challenge.invoice)
        if invoice.payment_hash != challenge.identifier.payment_hash.hex():
            raise RemoteProtocolError("ticket", "the invoice is not the one that the token is sold for")
        if invoice.amount_msat is None or invoice.amount_msat > ceiling_msat:
            raise RemoteProtocolError("ticket", f"costs {invoice.amount_msat} msat, {ceiling_msat} is the most that we pay")
        return invoice.amount_msat

    async def _pay(self, purchase: Purchase, ceiling_msat: Msat) -> Purchase:
        """Pay the saved invoice; the payer asks its node first whether that has happened. No timeout: see `Lightning.pay`."""
        challenge = parse_challenges_untrusted([f'L402 macaroon="{purchase.macaroon}", invoice="{purchase.invoice}"'])
        payment_hash = challenge.identifier.payment_hash
        result = await self._payer.pay(purchase.invoice, Digest(payment_hash.hex()), self._price(challenge, ceiling_msat))
        if result.preimage is None:
            await self._wallet.forget(purchase.announcement)
            raise Unavailable("the payment for the ticket failed, and the money is back")
        if not is_hex32(result.preimage) or sha256(bytes.fromhex(result.preimage)).digest() != payment_hash:
            raise LocalProtocolError("ticket: our payer says paid, and shows another payment's preimage")
        purchase = msgspec.structs.replace(purchase, preimage=result.preimage)
        await self._wallet.save(purchase)
        return purchase

    async def _ask(self, server: str, announcement: EventId, size: int, authorization: str | None) -> Ticket | Challenge:
        """One request; the ticket, or the challenge of a 402."""
        url = f"{server.rstrip('/')}{PATH}?announcement={announcement}&size={size}"
        headers = {HEADER: make_identity(self._signer, "POST", url, self._clock.now())}
        if authorization is not None:
            headers["Authorization"] = authorization
        with trio.move_on_after(ANSWER_S):
            try:
                async with self._http.stream("POST", url, headers=headers, follow_redirects=False) as response:
                    return self._read(response, await _body(response), server, announcement, size)
            except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:  # UnicodeError: its host is no name by IDNA's rules
                raise Unavailable(f"{server}: {type(error).__name__}") from error
        raise Unavailable(f"{server}: no answer within {ANSWER_S:g} s")

    def _read(self, response: httpx.Response, body: bytes, server: str, announcement: EventId, size: int) -> Ticket | Challenge:
        if response.status_code == 402:
            return parse_challenges_untrusted(response.headers.get_list("www-authenticate"))
        if response.status_code == 200:
            try:
                ticket = msgspec.json.decode(body, type=_Answer).ticket
            except (msgspec.DecodeError, UnicodeError, RecursionError):
                raise RemoteProtocolError("ticket", "the answer is not a ticket", whose=server) from None
            if (ticket.announcement, ticket.worker) != (announcement, self._signer.pubkey) or ticket.size < size:
                raise RemoteProtocolError("ticket", "the answer is another ticket", whose=server)
            return ticket
        reason = ascii(response.headers.get("x-reason", ""))[1:-1][:200]
        said = f"HTTP {response.status_code} {reason}".rstrip()
        if response.status_code in _FOR_GOOD:
            raise RemoteProtocolError("ticket", f"refused with {said}", whose=server)
        raise Unavailable(f"{server}: {said}")


def _origin(server: str) -> httpx.URL:
    """A base URL in its only spelling."""
    return httpx.URL(server.rstrip("/"))


async def _body(response: httpx.Response) -> bytes:
    """The answer's body, of which an honest one is small. Raises RemoteProtocolError.

    The loop is only ever left from within a read, so that httpx's nested generators unwind in order.
    """
    body = b""
    with trio.CancelScope() as scope:
        async for chunk in response.aiter_raw():
            if len(body) <= _MAX_ANSWER:
                body += chunk
            if len(body) > _MAX_ANSWER:
                scope.cancel()
    if len(body) > _MAX_ANSWER:
        raise RemoteProtocolError("ticket", f"an answer of more than {_MAX_ANSWER} bytes")
    return body
