"""The HTLCs that wait for an answer in this process, and when each gets it.

Every answer is read back from the store after the transaction that decided it, so nothing is ever said that is not on disk. An HTLC whose invoice
cannot be read or written now stays where it is, and is tried again: failing it could cost what a settled sibling has already earned.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from nostrain.errors import RemoteProtocolError
from nostrain.holdplugin import hook, invoices
from nostrain.holdplugin.hook import Reply
from nostrain.holdplugin.invoices import Fail, Failure, Hold, Invoice, Key, Offer, Refused, Resolve, Settings
from nostrain.holdplugin.store import Store
from nostrain.units import BlockHeight, Digest, UnixTime

ORPHAN_S: Final = 5.0
"""How long an accepted HTLC may be in nobody's hands before lightningd is asked whether it still exists."""

Log = Callable[[str, str], None]
"""A level of lightningd's and a line."""
LiveHtlcs = Callable[[], frozenset[tuple[Digest, int]]]
"""Payment hash and number of every HTLC that was offered to this node and is not resolved. Raises OSError, RemoteProtocolError."""


@dataclass(frozen=True)
class Waiting:
    """A hook call that has no reply yet."""

    offer: Offer
    reply: Callable[[Reply], None]


class Keeper:
    """One process's share. `holder` names this process; `others` says which other processes live. Any thread may call."""

    def __init__(self, store: Store, holder: str, others: Callable[[], frozenset[str]], log: Log) -> None:
        self._store, self._holder, self._others, self._log = store, holder, others, log
        self._lock = threading.RLock()
        self._waiting: list[Waiting] = []
        self._undecided: list[Waiting] = []
        self._seen = store.revision()
        self._height = BlockHeight(0)
        self._orphans: dict[Digest, float] = {}

    @property
    def height(self) -> BlockHeight:
        """The newest block that lightningd has told of; 0 before the first."""
        return self._height

    def receive(self, offer: Offer, reply: Callable[[Reply], None]) -> None:
        """Answer an HTLC now, or keep it until that can be done. Raises nothing but what `reply` does."""
        with self._lock:
            self._decide(Waiting(offer, reply))

    def settle(self, payment_hash: Digest, preimage: str) -> None:
        """Claim the invoice's HTLCs; persisted on return. Raises Refused; sqlite3.Error: not done."""
        if self._height == 0:
            raise Refused("the block height is not known yet: try again")
        if self._unheld(payment_hash):
            raise Refused("no HTLCs to settle: lightningd has not handed them over (yet)")
        rule = partial(invoices.settle, preimage=preimage, height=self._height, deadline=self._store.settings().expiry_deadline)
        if self._store.change(payment_hash, rule) is None:
            raise Refused("invoice not found")
        self.sweep()

    def cancel(self, payment_hash: Digest) -> None:
        """Fail the invoice's HTLCs and close it; persisted on return. Raises Refused; sqlite3.Error: not done."""
        if self._store.change(payment_hash, invoices.cancel) is None:
            raise Refused("invoice not found")
        self.sweep()

    def block(self, height: BlockHeight) -> None:
        """A block came: cancel what is too near its expiry. Raises sqlite3.Error: tried again by `tick`."""
        self._height = height
        self._expire()

    def tick(self, live: LiveHtlcs) -> None:
        """About once a second: whatever failed before, and what is due. Raises sqlite3.Error: the next tick tries again."""
        self._try_again()
        self._expire()
        now = UnixTime(int(time.time()))
        for payment_hash in self._store.partial():
            self._store.change(payment_hash, partial(invoices.time_out, timeout_s=self._store.settings().mpp_timeout_s, now=now))
        self._find_lost(live)
        self.sweep()

    def sweep(self) -> None:
        """Answer everything whose invoice has changed since the last sweep, by this process or the other one. Raises sqlite3.Error."""
        with self._lock:
            revision = self._store.revision()
            if revision == self._seen:
                return
            changed = frozenset(self._store.changed_since(self._seen))
            waiting = self._waiting
            self._waiting = [each for each in waiting if each.offer.payment_hash not in changed]
            for each in waiting:
                if each.offer.payment_hash in changed:
                    self._decide(each)
            self._seen = revision

    def _decide(self, waiting: Waiting) -> None:
        offer = waiting.offer
        try:
            if self._store.get(offer.payment_hash) is None:
                waiting.reply(hook.go_on())
                return
            invoice = self._store.change(offer.payment_hash, partial(self._take, offer), self._holder, offer.key)
        except Exception as error:
            # Mostly the database. Whatever it is, pyln must not fail the HTLC for it.
            self._log("error", f"HTLC {offer.scid}:{offer.key.number} waits, it cannot be decided: {error!r}")
            self._undecided.append(waiting)
            return
        if invoice is None:
            waiting.reply(hook.go_on())
            return
        match invoices.answer(invoice, offer.key):
            case Hold():
                self._waiting.append(waiting)
            case Resolve() as resolve:
                self._log("info", f"HTLC {offer.scid}:{offer.key.number} of {offer.payment_hash}: resolve")
                waiting.reply(hook.resolve(resolve))
            case Fail() as fail:
                self._log("info", f"HTLC {offer.scid}:{offer.key.number} of {offer.payment_hash}: fail, {fail.failure.value}")
                waiting.reply(hook.fail(fail, offer.amount_msat, max(offer.height, self._height)))

    def _try_again(self) -> None:
        """What could not be decided. When its time is up it is failed unseen: held for longer it would cost the channel."""
        with self._lock:
            again, self._undecided = self._undecided, []
            for waiting in again:
                self._decide(waiting)
            late = [each for each in self._undecided if each.offer.cltv_expiry - self._height <= Settings.expiry_deadline]
            self._undecided = [each for each in self._undecided if each not in late]
            for each in late:
                each.reply(hook.fail(Fail(Failure.DETAILS), each.offer.amount_msat, self._height))

    def _take(self, offer: Offer, invoice: Invoice) -> Invoice:
        taken = invoices.receive(invoice, offer, self._store.settings().expiry_deadline, UnixTime(int(time.time())))
        # One that is replayed near its end: nobody may settle it any more.
        return invoices.expire(taken, max(offer.height, self._height), self._store.settings().expiry_deadline)

    def _expire(self) -> None:
        if self._height == 0:
            return
        deadline = self._store.settings().expiry_deadline
        for payment_hash in self._store.expiring(BlockHeight(self._height + deadline)):
            self._log("unusual", f"{payment_hash} is cancelled: an HTLC of it expires in {deadline} blocks or less")
            self._store.change(payment_hash, partial(invoices.expire, height=self._height, deadline=deadline))
        self.sweep()

    def _unheld(self, payment_hash: Digest) -> tuple[Key, ...]:
        return self._store.unheld(payment_hash, {self._holder} | self._others())

    def _find_lost(self, live: LiveHtlcs) -> None:
        """Accepted HTLCs that no living process has: lightningd is about to hand them over, or it has failed them when both processes were dead."""
        now = time.monotonic()
        orphans = self._store.orphaned({self._holder} | self._others())
        self._orphans = {payment_hash: self._orphans.get(payment_hash, now) for payment_hash in orphans}
        overdue = [payment_hash for payment_hash, since in self._orphans.items() if now - since >= ORPHAN_S]
        if not overdue:
            return
        try:
            existing = live()
        except (OSError, RemoteProtocolError) as error:
            self._log("unusual", f"lightningd does not say which HTLCs it has: {error}")
            return
        for payment_hash in overdue:
            gone = frozenset(key for key in self._unheld(payment_hash) if (payment_hash, key.number) not in existing)
            if gone:
                self._log("unusual", f"{payment_hash}: {len(gone)} HTLCs are gone from lightningd")
                self._store.change(payment_hash, partial(invoices.lose, gone=gone))
