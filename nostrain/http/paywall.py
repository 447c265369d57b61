"""Sells tickets: `POST /ticket?announcement=<id>&size=<bytes>` (L402; design decision 3, section 7).

The asker proves its key with NIP-98 in `X-Nostr-Authorization`. Without a token the answer is 402 with an invoice and a macaroon that is
bound to run, round, worker, size and time; with the token and the payment's preimage it is 200 and the ticket. Tokens are verified from
their own bytes and a derived key; only a sold ticket is stored, by the injected book.

====  ==========================================================================
200   the ticket: just claimed, or held already
400   the request or the token is malformed
401   no proof of the key; the token is forged, or the preimage is not the payment's
402   unpaid: the challenge
403   not a worker of the round; the token is another worker's or another round's, or carries conditions that we do not know
404   no such round here
409   the worker holds a ticket already, for fewer bytes
410   the sale is over, or the token has expired
413   more bytes than the round allows, or than the token was bought for
429   too many requests by this worker
503   the Lightning node or the journal cannot answer now
====  ==========================================================================
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from nostrain.crypto.caveats import Grant, read_grant_untrusted
from nostrain.crypto.macaroon import Identifier, encode_identifier, mint
from nostrain.errors import RemoteProtocolError, Unavailable
from nostrain.http.l402_check import check_paid, read_credentials_untrusted
from nostrain.http.l402_identity import HEADER, read_identity_untrusted
from nostrain.ports.clock import Clock
from nostrain.ports.entropy import Entropy
from nostrain.ports.tickets import InvoiceSource, Ticket, TicketBook, TicketKeys, TicketTerms
from nostrain.ports.tolls import Refusal
from nostrain.units import Digest, EventId, Pubkey, UnixTime, is_hex32
from nostrain.wire.l402 import Credentials, format_challenges

PATH: Final = "/ticket"
_MAX_DIGITS: Final = 15


class PaywallLimits(msgspec.Struct, frozen=True):
    """`requests` by one worker in `window_s` seconds; an invoice can be paid for `invoice_s` seconds, or until the sale ends."""

    requests: int = 20
    window_s: int = 60
    invoice_s: int = 600


class _Asked(NamedTuple):
    announcement: EventId
    size: int


class Paywall:
    """The endpoint. `location` is the macaroons' hint of where they come from; `public_url` how the world reaches this server (None: as bound)."""

    def __init__(
        self,
        book: TicketBook,
        invoices: InvoiceSource,
        keys: TicketKeys,
        clock: Clock,
        entropy: Entropy,
        *,
        location: str = "nostrain",
        public_url: str | None = None,
        limits: PaywallLimits | None = None,
    ) -> None:
        self._book, self._invoices, self._keys, self._clock, self._entropy = book, invoices, keys, clock, entropy
        self._location, self._limits = location, limits or PaywallLimits()
        self._public_url = public_url.rstrip("/") if public_url else None
        self._recent: dict[Pubkey, deque[UnixTime]] = {}

    async def ticket(self, request: Request) -> Response:
        """Serve one request. Raises HTTPException with the status of the table above."""
        asked, credentials = _read(request), _credentials(request)
        worker = self._identify(request)
        terms = self._book.terms(asked.announcement)
        if terms is None:
            raise _refusal(404, "no such round here")
        if worker not in terms.workers:
            raise _refusal(403, "not a worker of this round")
        self._count(worker)
        if asked.size > terms.max_size:
            raise _refusal(413, f"{asked.size} bytes, a submission of this round has at most {terms.max_size}")
        try:
            if credentials is not None:
                return await self._redeem(asked, worker, terms, credentials)
            held = self._book.held(asked.announcement, worker)
            return await self._challenge(asked, worker, terms) if held is None else _answer(asked, held)
        except Unavailable as error:
            raise _refusal(503, f"not now: {error}", {"Retry-After": "5"}) from error

    def _identify(self, request: Request) -> Pubkey:
        header = request.headers.get(HEADER)
        if header is None:
            raise _refusal(401, f"{HEADER}: missing", {"WWW-Authenticate": "Nostr"})
        try:
            return read_identity_untrusted(header, request.method, self._url(request), self._clock.now())
        except RemoteProtocolError as error:
            raise _refusal(401, str(error), {"WWW-Authenticate": "Nostr"}) from error

    def _url(self, request: Request) -> str:
        """The URL that was asked for, as the client must have signed it. Its host is never taken from a header of the request."""
        base = self._public_url
        if base is None:
            host, port = request.scope["server"]
            base = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        return f"{base}{PATH}?{request.scope['query_string'].decode('latin-1')}"

    def _count(self, worker: Pubkey) -> None:
        """Rate limit. Only workers of a round are counted, so the table is no larger than the rounds' lists."""
        now = self._clock.now()
        recent = self._recent.setdefault(worker, deque())
        while recent and recent[0] <= now - self._limits.window_s:
            recent.popleft()
        if len(recent) >= self._limits.requests:
            wait = recent[0] + self._limits.window_s - now
            raise _refusal(429, f"more than {self._limits.requests} requests in {self._limits.window_s} s", {"Retry-After": str(wait)})
        recent.append(now)

    async def challenges(self, announcement: EventId, worker: Pubkey, size: int, terms: TicketTerms) -> tuple[str, str]:
        """The two values of `WWW-Authenticate` that sell the worker a ticket: a fresh invoice, and a macaroon that is worth something only
        with its preimage. Raises Unavailable.
        """
        expiry = min(terms.sold_until - self._clock.now(), self._limits.invoice_s)
        description, ticket = f"nostrain ticket {announcement[:16]}", (announcement, worker)
        invoice, payment_hash = await self._invoices.invoice(terms.fee_msat, description, expiry, ticket=ticket)
        identifier = Identifier(bytes.fromhex(payment_hash), self._entropy.draw(32))
        grant = Grant(terms.run, announcement, worker, size, terms.expires)
        macaroon = mint(self._keys.ticket_key(identifier.token), encode_identifier(identifier), self._location, grant.caveats())
        return format_challenges(macaroon, invoice)

    async def _challenge(self, asked: _Asked, worker: Pubkey, terms: TicketTerms) -> Response:
        """402, as long as tickets of the round are sold."""
        if self._clock.now() >= terms.sold_until:
            raise _refusal(410, "no more tickets are sold for this round")
        challenges = await self.challenges(asked.announcement, worker, asked.size, terms)
        response = JSONResponse({"message": "payment required", "fee_msat": terms.fee_msat}, 402, {"Cache-Control": "no-store"})
        for value in challenges:
            response.headers.append("WWW-Authenticate", value)
        return response

    async def _redeem(self, asked: _Asked, worker: Pubkey, terms: TicketTerms, shown: Credentials) -> Response:
        """200: the ticket, recorded. The same token again gives the same ticket."""
        identifier, unpaid = shown.identifier, check_paid(shown, self._keys)
        if unpaid is not None:
            raise _refusal(unpaid.status, unpaid.reason, dict(unpaid.headers))
        try:
            grant = read_grant_untrusted(shown.macaroon.caveats)
        except RemoteProtocolError as error:
            raise _refusal(403, str(error)) from error
        if grant.worker != worker:
            raise _refusal(403, "the token was bought by another worker")
        if (grant.run, grant.round) != (terms.run, asked.announcement):
            raise _refusal(403, "the token was bought for another round")
        if (grant.sha256, grant.method) != (None, None):
            raise _refusal(403, "the token is narrowed to an upload")
        if asked.size > grant.size:
            raise _refusal(413, f"{asked.size} bytes, the token was bought for {grant.size}")
        if self._clock.now() >= min(grant.expires, terms.expires):
            raise _refusal(410, "the token has expired")
        token, payment_hash = Digest(identifier.token.hex()), Digest(identifier.payment_hash.hex())
        return _answer(asked, await self._book.redeem(Ticket(asked.announcement, worker, grant.size, token, payment_hash)))


def paywall_app(paywall: Paywall, rest: ASGIApp | None = None) -> ASGIApp:
    """`/ticket` as an ASGI application; every other path is `rest`'s (the Blossom server, say), or not found."""
    app = Starlette(routes=[Route(PATH, paywall.ticket, methods=["POST"])], exception_handlers={HTTPException: _refuse})
    if rest is None:
        return app

    async def dispatch(scope: Scope, receive: Receive, send: Send) -> None:
        await (app if scope.get("path") == PATH else rest)(scope, receive, send)

    return dispatch


def _read(request: Request) -> _Asked:
    """What is asked for, before anything is believed."""
    if request.headers.get("transfer-encoding") is not None or request.headers.get("content-length", "0") != "0":
        raise _refusal(400, "the request has a body, which means nothing here")
    query = request.query_params.multi_items()
    names = sorted(name for name, _ in query)
    if names != ["announcement", "size"]:
        raise _refusal(400, "the query must be announcement=<id>&size=<bytes>")
    announcement, size = dict(query)["announcement"], dict(query)["size"]
    if not is_hex32(announcement):
        raise _refusal(400, "announcement: not 64 lowercase hex characters")
    if not (size.isascii() and size.isdecimal() and len(size) <= _MAX_DIGITS and int(size) > 0):
        raise _refusal(400, "size: not a number of bytes")
    return _Asked(EventId(announcement), int(size))


def _credentials(request: Request) -> Credentials | None:
    """The L402 token that is shown, if any."""
    headers = request.headers.getlist("authorization")
    if not headers:
        return None
    if len(headers) > 1:
        raise _refusal(400, "Authorization: exactly one L402 token, or none")
    credentials = read_credentials_untrusted(headers[0])
    if isinstance(credentials, Refusal):
        raise _refusal(credentials.status, credentials.reason)
    return credentials


def _answer(asked: _Asked, ticket: Ticket) -> Response:
    if asked.size > ticket.size:
        raise _refusal(409, f"a ticket for {ticket.size} bytes is held already")
    return JSONResponse({"ticket": msgspec.to_builtins(ticket)}, headers={"Cache-Control": "no-store"})


def _refusal(status: int, reason: str, headers: dict[str, str] | None = None) -> HTTPException:
    """The HTTP error whose `X-Reason` is `reason`, reduced to what a header may carry."""
    printable = "".join(char if " " <= char <= "~" else "?" for char in reason[:300])
    return HTTPException(status, printable, headers={**(headers or {}), "X-Reason": printable})


async def _refuse(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"message": error.detail}, error.status_code, headers=error.headers)
