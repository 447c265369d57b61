"""Sells single requests: a price for each route, paid by L402 or by BUD-07's `X-Lightning`, whichever the client speaks.

Without payment the answer is 402 with one invoice in three spellings (L402, its newer form, `X-Lightning`). What is bought is one request: its
method, path, blob and size. It is used up once as many bytes as it pays for came or went, so a transfer that broke off can be tried again.

====  ==========================================================================
400   the token or the preimage is malformed; a preimage that is not of this request, or has expired (BUD-07)
401   the token is forged, or the preimage is not that of its payment
402   unpaid: the challenges
403   a token of another request, or with conditions that we do not know
409   what was bought has been used up
410   the token has expired
413   more bytes than were paid for
429   the token is being used by another request now
503   the Lightning node or the disk cannot answer now
====  ==========================================================================
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec
import trio

from nostrain.crypto.caveats import Toll, read_toll_untrusted
from nostrain.crypto.macaroon import Identifier, encode_identifier, mint, payment_hash_of
from nostrain.errors import RemoteProtocolError, Unavailable
from nostrain.http.l402_check import check_paid, read_credentials_untrusted
from nostrain.http.toll_preimage import RANDOM_BYTES, make_preimage, read_preimage_untrusted
from nostrain.ports.clock import Clock
from nostrain.ports.entropy import Entropy
from nostrain.ports.tickets import InvoiceSource, TicketKeys
from nostrain.ports.tolls import FirstUse, FreePassage, Passage, Refusal, Route, Shown, Use
from nostrain.units import Msat, UnixTime, is_hex32
from nostrain.wire.l402 import format_challenges

_log = logging.getLogger("nostrain.http")

INVOICE_S: Final = 600
"""How long an invoice can be paid."""
LIFETIME_S: Final = 86_400
"""How long after it was offered a request that was paid for can be made."""
UNFINISHED: Final = 4096
"""Broken transfers that are remembered; the oldest is forgotten first, in its buyer's favour."""

PATIENCE_S: Final = 5.0
"""How long a request waits for another one on the same payment: its bytes may be out before its end is written down."""

_MSAT: Final = 1000
_MB: Final = 1_000_000
_LATER: Final = (("Retry-After", "1"),)


class Price(msgspec.Struct, frozen=True):
    """What one request costs: `request_msat` and `mb_msat` for each 10⁶ bytes of its blob, in all rounded up to whole sat."""

    request_msat: int = 0
    mb_msat: int = 0

    def of(self, size: int) -> Msat:
        """The price of a request for `size` bytes; 0: free."""
        exact = self.request_msat + -(-self.mb_msat * size // _MB)
        return Msat(-(-exact // _MSAT) * _MSAT)


class _Bought(NamedTuple):
    """A payment that counts for the request that showed it."""

    payment: str
    toll: Toll


class Tollgate:
    """`ports.tolls.Tolls` by price list; a route that is not in it is free. `location` is the macaroons' hint of where they come from."""

    def __init__(
        self,
        prices: Mapping[Route, Price],
        invoices: InvoiceSource,
        keys: TicketKeys,
        clock: Clock,
        entropy: Entropy,
        uses: FirstUse,
        *,
        location: str = "nostrain",
    ) -> None:
        self._prices, self._invoices, self._keys, self._clock = prices, invoices, keys, clock
        self._entropy, self._uses, self._location = entropy, uses, location
        self._busy: dict[str, trio.Event] = {}
        self._moved: OrderedDict[str, int] = OrderedDict()

    async def admit(self, use: Use, shown: Shown) -> Passage | Refusal:
        """As the port."""
        price = self._prices.get(use.route, Price()).of(use.size)
        if price == 0:
            return FreePassage()
        try:
            found = self._read(use, shown)
            if found is None:
                return await self._demand(use, price)
            if isinstance(found, Refusal) or use.preview:
                return found if isinstance(found, Refusal) else FreePassage()
            return await self._use(found)
        except Unavailable as error:
            return Refusal(503, f"not now: {error}", (("Retry-After", "5"),))

    async def _use(self, bought: _Bought) -> Passage | Refusal:
        """The one passage that there is at a time; a request that follows on another's heels waits for it a moment. Raises Unavailable."""
        with trio.move_on_after(PATIENCE_S):
            while (other := self._busy.get(bought.payment)) is not None:
                await other.wait()
        if bought.payment in self._busy:
            return Refusal(429, "what was bought is being used by another request", _LATER)
        self._busy[bought.payment] = trio.Event()
        try:
            spent = await self._uses.claimed(bought.payment) is not None
        except BaseException:
            self._leave(bought)
            raise
        if spent:
            self._leave(bought)
            return Refusal(409, "what was bought has been used up")
        return _Passage(self, bought)

    def _leave(self, bought: _Bought) -> None:
        self._busy.pop(bought.payment).set()

    async def finish(self, bought: _Bought, moved: int | None) -> None:
        """A passage is over: remember how much of it is left."""
        try:
            total = self._moved.pop(bought.payment, 0) + (moved or 0)
            if moved is not None and total >= bought.toll.size:
                await self._uses.claim(bought.payment, bought.toll.path, UnixTime(bought.toll.expires + LIFETIME_S))
            elif total:
                self._moved[bought.payment] = total
                if len(self._moved) > UNFINISHED:
                    self._moved.popitem(last=False)
        except Unavailable as error:
            _log.warning("a use that was paid for may be repeated: %s", error)
        finally:
            self._leave(bought)

    def _read(self, use: Use, shown: Shown) -> _Bought | Refusal | None:
        """The payment that is shown, if it is for this request; None when nothing is shown."""
        if shown.authorization is not None:
            return self._read_token(use, shown.authorization)
        return None if shown.lightning is None else self._read_preimage(use, shown.lightning)

    def _read_token(self, use: Use, header: str) -> _Bought | Refusal:
        credentials = read_credentials_untrusted(header)
        if isinstance(credentials, Refusal):
            return credentials
        unpaid = check_paid(credentials, self._keys)
        if unpaid is not None:
            return unpaid
        try:
            toll = read_toll_untrusted(credentials.macaroon.caveats)
        except RemoteProtocolError as error:
            return Refusal(403, str(error))
        if (toll.method, toll.path, toll.sha256) != (use.method, use.path, use.sha256):
            return Refusal(403, "the token was bought for another request")
        if self._clock.now() >= toll.expires:
            return Refusal(410, "the token has expired")
        return self._enough(use, _Bought(f"toll/{credentials.identifier.payment_hash.hex()}", toll))

    def _read_preimage(self, use: Use, header: str) -> _Bought | Refusal:
        text = header.strip().lower()
        if not is_hex32(text):
            return Refusal(400, "X-Lightning: not a preimage of 64 hex digits")
        preimage = bytes.fromhex(text)
        toll = read_preimage_untrusted(self._keys, preimage, use.method, use.path, use.sha256)
        if toll is None or self._clock.now() >= toll.expires:
            return Refusal(400, "X-Lightning: not the preimage of a payment for this request, or one that has expired")
        return self._enough(use, _Bought(f"toll/{payment_hash_of(preimage).hex()}", toll))

    @staticmethod
    def _enough(use: Use, bought: _Bought) -> _Bought | Refusal:
        if use.size > bought.toll.size:
            return Refusal(413, f"{use.size} bytes, {bought.toll.size} were paid for")
        return bought

    async def _demand(self, use: Use, price: Msat) -> Refusal:
        """402: an invoice, and a macaroon that is worth something only with its preimage. Raises Unavailable."""
        toll = Toll(use.method, use.path, use.sha256, use.size, self._clock.now() + LIFETIME_S)
        preimage = make_preimage(self._keys, toll, self._entropy.draw(RANDOM_BYTES))
        description = f"nostrain {use.method} {use.path[:24]}"
        invoice, payment_hash = await self._invoices.invoice(price, description, INVOICE_S, preimage)
        identifier = Identifier(bytes.fromhex(payment_hash), self._entropy.draw(32))
        macaroon = mint(self._keys.ticket_key(identifier.token), encode_identifier(identifier), self._location, toll.caveats())
        headers = [("WWW-Authenticate", value) for value in format_challenges(macaroon, invoice)]
        headers += [("X-Lightning", invoice), ("Cache-Control", "no-store")]
        return Refusal(402, f"payment required: {price // _MSAT} sat", tuple(headers))


class _Passage:
    """A request on its payment."""

    def __init__(self, gate: Tollgate, bought: _Bought) -> None:
        self._gate, self._bought = gate, bought

    async def finish(self, moved: int | None) -> None:
        """As the port."""
        await self._gate.finish(self._bought, moved)
