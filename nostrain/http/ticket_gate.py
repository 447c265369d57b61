"""Lets a worker's delta in on the ticket of its round (design decision 3: the ticket later authorises the upload).

    Authorization: L402 <the ticket's macaroon, narrowed by sha256=<delta> and method=PUT>:<preimage>
    X-Nostr-Authorization: Nostr <BUD-11 event>          proves the worker's key, as `Authorization` does on free uploads

====  ==========================================================================
400   the token is malformed
401   no token of a ticket that is held; the token is forged, or the preimage is not the payment's
402   no ticket was bought: the challenge, as long as tickets of the round are sold
403   another worker's or another round's ticket; narrowed to another blob or method, or to none; conditions that we do not know
409   the ticket was used for another blob
410   the ticket has expired
413   more bytes than the ticket was bought for
503   the journal or the Lightning node cannot answer now
====  ==========================================================================
"""

from __future__ import annotations

from nostrain.crypto.caveats import read_grant_untrusted
from nostrain.errors import RemoteProtocolError, Unavailable
from nostrain.http.l402_check import ASK_L402, check_paid, read_credentials_untrusted
from nostrain.http.paywall import PATH, Paywall
from nostrain.ports.clock import Clock
from nostrain.ports.tickets import Ticket, TicketBook, TicketKeys, TicketTerms
from nostrain.ports.tolls import FirstUse, Refusal, Shown, Use
from nostrain.units import Digest, EventId, UnixTime
from nostrain.wire.l402 import Credentials

REMEMBERED_S = 7 * 86_400
"""How long after its ticket's end a use is remembered: clocks are set back, seldom by a week."""


class TicketGate:
    """Checks the tickets that `paywall` has sold. The first blob for which a worker shows a ticket of a round is the only one."""

    def __init__(self, paywall: Paywall, book: TicketBook, keys: TicketKeys, clock: Clock, uses: FirstUse) -> None:
        self._paywall, self._book, self._keys, self._clock, self._uses = paywall, book, keys, clock, uses

    async def admit(self, announcement: EventId, use: Use, shown: Shown) -> Refusal | None:
        """None when `use.who` may upload `use.sha256` in the round, else why not. Idempotent: the same upload may be tried again."""
        terms = self._book.terms(announcement)
        if terms is None or use.who is None or use.sha256 is None:
            return Refusal(403, "there is no ticket for such an upload")
        if use.size > terms.max_size:
            return Refusal(413, f"{use.size} bytes, a submission of this round has at most {terms.max_size}")
        try:
            if shown.authorization is None:
                return await self._unpaid(announcement, use, terms)
            credentials = read_credentials_untrusted(shown.authorization)
            if isinstance(credentials, Refusal):
                return credentials
            return check_paid(credentials, self._keys) or await self._check(announcement, use, terms, credentials)
        except Unavailable as error:
            return Refusal(503, f"not now: {error}", (("Retry-After", "5"),))

    async def _unpaid(self, announcement: EventId, use: Use, terms: TicketTerms) -> Refusal:
        assert use.who is not None
        if self._book.held(announcement, use.who) is not None:
            return Refusal(401, "show the ticket that you hold", ASK_L402)
        if self._clock.now() >= terms.sold_until:
            return Refusal(402, "no ticket was bought for this round, and none is sold any more", ASK_L402)
        challenges = await self._paywall.challenges(announcement, use.who, use.size, terms)
        return Refusal(402, f"a ticket is required: pay, or buy it at POST {PATH}", tuple(("WWW-Authenticate", one) for one in challenges))

    async def _check(self, announcement: EventId, use: Use, terms: TicketTerms, shown: Credentials) -> Refusal | None:
        assert use.who is not None and use.sha256 is not None  # noqa: PT018 - admit has looked
        try:
            grant = read_grant_untrusted(shown.macaroon.caveats)
        except RemoteProtocolError as error:
            return Refusal(403, str(error))
        if grant.worker != use.who:
            return Refusal(403, "the ticket was bought by another worker")
        if (grant.run, grant.round) != (terms.run, announcement):
            return Refusal(403, "the ticket was bought for another round")
        if (grant.sha256, grant.method) != (use.sha256, use.method):
            return Refusal(403, f"the ticket is not narrowed to sha256={use.sha256[:8]}… and method={use.method}")
        if use.size > grant.size:
            return Refusal(413, f"{use.size} bytes, the ticket was bought for {grant.size}")
        end = min(grant.expires, terms.expires)
        if self._clock.now() >= end:
            return Refusal(410, "the ticket has expired")
        if use.preview:
            return None
        await self._claim(announcement, use, grant.size, shown)
        key, remembered = f"ticket/{announcement}/{use.who}", UnixTime(end + REMEMBERED_S)
        first = await self._uses.claim(key, use.sha256, remembered)
        return None if first == use.sha256 else Refusal(409, f"the ticket was used for another blob, {first[:8]}")

    async def _claim(self, announcement: EventId, use: Use, size: int, shown: Credentials) -> None:
        """A ticket that was paid for and never claimed at the paywall is claimed by its use."""
        assert use.who is not None
        if self._book.held(announcement, use.who) is None:
            token, payment_hash = Digest(shown.identifier.token.hex()), Digest(shown.identifier.payment_hash.hex())
            await self._book.redeem(Ticket(announcement, use.who, size, token, payment_hash))
