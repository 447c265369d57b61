"""`ports.lightning.Lightning` in memory: one ledger, one direct channel between any two nodes, hold invoices, HTLCs that expire by block.

The nodes outlive the daemons that use them, as lightningd does; a node that crashes keeps what it has promised. Money is conserved: balances plus
held HTLCs are what was put in.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum

import trio

from nostrain.errors import LocalProtocolError, OutcomeUnknown, Unavailable
from nostrain.ports.lightning import FetchedInvoice, HoldState, HoldUpdate, Income, NodeFunds, PayResult, PeerFunds
from nostrain.testing.offers import OfferBook
from nostrain.testing.spending import FakeSpending
from nostrain.testing.wallet import FakeWallet
from nostrain.units import BlockHeight, Digest, Msat, UnixTime

PREFIX = "lnfake"
ROOM_MSAT = Msat(1 << 50)
"""What a fake node can receive."""
SLOTS = 483


class Move(Enum):
    """What money can do: from the payer into an HTLC, from there to the payee or back."""

    LOCKED = "locked"
    SETTLED = "settled"
    RETURNED = "returned"


@dataclass
class Invoice:
    """A hold invoice and, once paid towards, its one HTLC."""

    payee: str
    payment_hash: Digest
    amount_msat: Msat
    min_final_cltv: int
    state: HoldState = HoldState.UNPAID
    payer: str | None = None
    cltv_expiry: BlockHeight | None = None
    preimage: str | None = None


@dataclass
class FakeLedger:
    """Balances, invoices and offers of every node. `height` tells the best block, `now` the time (for invoices from offers only);
    `lost_replies` payments come back as OutcomeUnknown first.

    `moves` counts how often the money of a hash moved. `failed` remembers the payments, by payer and hash, that ended without ever being held;
    `down` are the nodes that do not answer now, `syncing` those that catch up with the chain, and what they say of it.
    """

    height: Callable[[], int]
    balances: dict[str, Msat] = field(default_factory=dict)
    invoices: dict[Digest, Invoice] = field(default_factory=dict)
    lost_replies: int = 0
    moves: Counter[tuple[Digest, Move]] = field(default_factory=Counter)
    failed: set[tuple[str, Digest]] = field(default_factory=set)
    down: set[str] = field(default_factory=set)
    syncing: dict[str, str] = field(default_factory=dict)
    changed: trio.Event = field(default_factory=trio.Event)
    now: Callable[[], float] = time.time
    book: OfferBook = field(default_factory=OfferBook)
    wallet: FakeWallet = field(default_factory=FakeWallet)

    def poke(self) -> None:
        """Wake whoever waits for a change."""
        changed, self.changed = self.changed, trio.Event()
        changed.set()

    @property
    def sent(self) -> int:
        """HTLCs ever locked."""
        return sum(count for (_, move), count in self.moves.items() if move is Move.LOCKED)

    def held(self) -> int:
        """Sum of the accepted HTLCs."""
        return sum(invoice.amount_msat for invoice in self.invoices.values() if invoice.state is HoldState.ACCEPTED)

    def total(self) -> int:
        """What must never change."""
        return sum(self.balances.values()) + self.held() + self.book.under_way()

    def expire(self) -> None:
        """Fail every HTLC whose expiry has come, as the chain would."""
        for invoice in self.invoices.values():
            if invoice.state is HoldState.ACCEPTED and invoice.cltv_expiry is not None and self.height() >= invoice.cltv_expiry:
                self.fail(invoice)

    def unstick(self) -> None:
        """Let payments of fetched invoices arrive again."""
        self.book.stuck = False
        self.book.arrive(self.balances)
        self.poke()

    def crash(self, name: str) -> None:
        """Take a node down, until `start`."""
        self.down.add(name)
        self.poke()

    def start(self, name: str) -> None:
        """Bring it up again."""
        self.down.discard(name)
        self.poke()

    def fail(self, invoice: Invoice) -> None:
        """Give an accepted HTLC back; an invoice that nobody paid is just closed."""
        if invoice.state is HoldState.ACCEPTED and invoice.payer is not None:
            self.balances[invoice.payer] = Msat(self.balances[invoice.payer] + invoice.amount_msat)
            self.moves[invoice.payment_hash, Move.RETURNED] += 1
        invoice.state = HoldState.CANCELLED
        self.poke()


class FakeLightning(FakeSpending):
    """One node."""

    def __init__(self, ledger: FakeLedger, name: str, sent: Callable[[], None] = lambda: None) -> None:
        """`sent` is called when a payment of ours is on its way, before anybody is told how it ends."""
        self._ledger, self._name, self._sent = ledger, name, sent

    async def _reach(self) -> None:
        """A checkpoint. Raises Unavailable while the node is down."""
        await trio.lowlevel.checkpoint()
        if self._name in self._ledger.down:
            raise Unavailable(f"the Lightning node of {self._name} is down")

    async def block_height(self) -> BlockHeight:
        """As the port."""
        await self._reach()
        if self._name in self._ledger.syncing:
            raise Unavailable(self._ledger.syncing[self._name])
        self._ledger.expire()
        return BlockHeight(self._ledger.height())

    async def funds(self) -> NodeFunds:
        """As the port: one channel that takes whatever comes, and sends the whole balance."""
        await self._reach()
        ledger = self._ledger
        ledger.expire()
        peer = PeerFunds("ledger", True, ledger.balances.get(self._name, Msat(0)), ROOM_MSAT, SLOTS, SLOTS)
        height, wallet = BlockHeight(ledger.height()), ledger.wallet
        opened = tuple(PeerFunds(node_id, True, msat, Msat(0), SLOTS, SLOTS) for node_id, msat in wallet.peers(self._name, height))
        channels = (wallet.channels[self._name],) if self._name in wallet.channels and self._name not in wallet.pending else ()
        return NodeFunds(height, ledger.syncing.get(self._name), (peer, *opened), self._name, wallet.free(self._name, height), channels)

    async def hold_invoice(self, payment_hash: Digest, amount_msat: Msat, min_final_cltv: int, expiry_s: int) -> str:
        """As the port."""
        await self._reach()
        known = self._ledger.invoices.setdefault(payment_hash, Invoice(self._name, payment_hash, amount_msat, min_final_cltv))
        over = known.state in (HoldState.PAID, HoldState.CANCELLED)
        if over or (known.payee, known.amount_msat, known.min_final_cltv) != (self._name, amount_msat, min_final_cltv):
            raise LocalProtocolError(f"the hash {payment_hash[:8]} is in use")
        return f"{PREFIX}:{payment_hash}:{amount_msat}"

    async def pay(self, bolt11: str, payment_hash: Digest, amount_msat: Msat) -> PayResult:
        """As the port: a second call joins the first."""
        ledger = self._ledger
        try:
            await self._reach()
        except Unavailable as error:
            raise OutcomeUnknown(str(error)) from error
        ledger.expire()
        invoice = ledger.invoices.get(payment_hash)
        if invoice is None or bolt11 != f"{PREFIX}:{payment_hash}:{amount_msat}" or invoice.amount_msat != amount_msat:
            return PayResult(payment_hash, None)
        if invoice.payer != self._name and not self._lock(invoice):
            return PayResult(payment_hash, None)
        if ledger.lost_replies > 0:
            ledger.lost_replies -= 1
            raise OutcomeUnknown(f"payment {payment_hash[:8]}: the reply was lost")
        while invoice.state is HoldState.ACCEPTED:
            if self._name in ledger.down:
                raise OutcomeUnknown(f"payment {payment_hash[:8]}: the node of {self._name} went down")
            await ledger.changed.wait()
        return PayResult(payment_hash, invoice.preimage if invoice.state is HoldState.PAID else None)

    def _lock(self, invoice: Invoice) -> bool:
        """Send the HTLC; whether it is held now. What failed once is not sent again. Raises OutcomeUnknown while the payee's node is down."""
        ledger, key = self._ledger, (self._name, invoice.payment_hash)
        if invoice.payee in ledger.down:
            raise OutcomeUnknown(f"payment {invoice.payment_hash[:8]}: the node of {invoice.payee} is not connected")
        poor = ledger.balances.get(self._name, 0) < invoice.amount_msat
        if poor or invoice.state is not HoldState.UNPAID or key in ledger.failed:
            ledger.failed.add(key)
            return False
        ledger.balances[self._name] = Msat(ledger.balances[self._name] - invoice.amount_msat)
        invoice.state, invoice.payer = HoldState.ACCEPTED, self._name
        invoice.cltv_expiry = BlockHeight(ledger.height() + invoice.min_final_cltv)
        ledger.moves[invoice.payment_hash, Move.LOCKED] += 1
        ledger.poke()
        self._sent()
        return True

    async def settle(self, preimage: str) -> None:
        """As the port."""
        await self._reach()
        ledger = self._ledger
        ledger.expire()
        invoice = ledger.invoices.get(Digest(hashlib.sha256(bytes.fromhex(preimage)).hexdigest()))
        if invoice is not None and invoice.state is HoldState.PAID:
            return
        if invoice is None or invoice.payee != self._name or invoice.state is not HoldState.ACCEPTED:
            raise LocalProtocolError("settle: no accepted hold invoice has that preimage")
        invoice.state, invoice.preimage = HoldState.PAID, preimage
        ledger.balances[self._name] = Msat(ledger.balances.get(self._name, 0) + invoice.amount_msat)
        ledger.moves[invoice.payment_hash, Move.SETTLED] += 1
        ledger.poke()

    async def cancel(self, payment_hash: Digest) -> None:
        """As the port."""
        await self._reach()
        invoice = self._ledger.invoices.get(payment_hash)
        if invoice is None or invoice.payee != self._name or invoice.state is HoldState.CANCELLED:
            return
        if invoice.state is HoldState.PAID:
            raise LocalProtocolError("cancel: the invoice is paid")
        self._ledger.fail(invoice)

    @asynccontextmanager
    async def holds(self) -> AsyncIterator[trio.MemoryReceiveChannel[HoldUpdate]]:
        """As the port. While the node is down the channel ends, and leaving raises Unavailable."""
        send, receive = trio.open_memory_channel[HoldUpdate](1024)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, send)
            yield receive
            nursery.cancel_scope.cancel()
        await self._reach()

    async def _watch(self, send: trio.MemorySendChannel[HoldUpdate]) -> None:
        told: dict[Digest, HoldState] = {}
        async with send:
            while self._name not in self._ledger.down:
                changed = self._ledger.changed
                for invoice in list(self._ledger.invoices.values()):
                    if invoice.payee == self._name and told.get(invoice.payment_hash) is not invoice.state:
                        told[invoice.payment_hash] = invoice.state
                        await send.send(HoldUpdate(invoice.payment_hash, invoice.state, invoice.amount_msat, invoice.cltv_expiry))
                await changed.wait()

    async def income(self, after: int) -> Income | None:
        """As the port."""
        await self._reach()
        return next((one for one in self._ledger.book.came.get(self._name, []) if one.index > after), None)

    async def offer(self, description: str) -> str:
        """As the port."""
        await self._reach()
        return self._ledger.book.offer(self._name, description)

    async def fetch_invoice(self, offer: str, amount_msat: Msat) -> FetchedInvoice:
        """As the port; the other node has to be up."""
        await self._reach()
        book = self._ledger.book
        if (issuer := book.issuer(offer)) in self._ledger.down:
            raise Unavailable(f"the node of {issuer} does not answer")
        return book.invoice(self._name, offer, amount_msat, UnixTime(int(self._ledger.now())))

    async def pay_fetched(self, bolt12: str, payment_hash: Digest, amount_msat: Msat) -> PayResult:
        """As the port: a second call joins the first."""
        ledger, book = self._ledger, self._ledger.book
        try:
            await self._reach()
        except Unavailable as error:
            raise OutcomeUnknown(str(error)) from error
        row = book.fetched.get(payment_hash)
        if row is None or row.amount_msat != amount_msat:
            return PayResult(payment_hash, None)
        if row.payer is None and row.payee in ledger.down:
            raise OutcomeUnknown(f"payment {payment_hash[:8]}: the node of {row.payee} is not connected")
        if book.begin(self._name, row, payment_hash, ledger.balances, UnixTime(int(ledger.now()))):
            self._sent()
        book.arrive(ledger.balances)
        ledger.poke()
        if ledger.lost_replies > 0:
            ledger.lost_replies -= 1
            raise OutcomeUnknown(f"payment {payment_hash[:8]}: the reply was lost")
        while row.pending:
            if self._name in ledger.down:
                raise OutcomeUnknown(f"payment {payment_hash[:8]}: the node of {self._name} went down")
            await ledger.changed.wait()
        return PayResult(payment_hash, row.preimage if row.payer == self._name else None)
