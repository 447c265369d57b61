"""Hold invoices in SQLite (WAL, synchronous=FULL), shared by two processes.

A change reads an invoice, applies a rule of `invoices` to it and writes the difference, in one transaction: when `change` has returned, it is on disk.
Every change gives the invoice a higher revision, so that the other process finds what is new without reading everything.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from nostrain.holdplugin.invoices import Failure, Htlc, Invoice, Key, Refused, Settings, State
from nostrain.holdplugin.schema import open_database
from nostrain.units import BlockHeight, Digest, Msat, UnixTime

_INVOICE: Final = "id, payment_hash, payment_secret, preimage, state, amount_msat, coalesce(min_cltv, final_cltv), expires_at"
_HTLC: Final = "number, onion, scid, msat, total_msat, cltv_expiry, created_at, state, failure"


@dataclass(frozen=True)
class Row:
    """What the table has of an invoice beside the rules' view of it."""

    id: int
    bolt11: str
    explicit_min_cltv: int | None
    created_at: UnixTime
    settled_at: UnixTime | None
    invoice: Invoice
    htlc_ids: tuple[int, ...]


class Store:
    """One connection. Any thread may call; they take turns. Every method raises sqlite3.Error when the file cannot be used."""

    def __init__(self, path: Path) -> None:
        self._database = open_database(path)
        self._lock = threading.RLock()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    def configure(self, settings: Settings) -> None:
        """Keep the options, for the process that lightningd does not tell them."""
        with self._transaction():
            self._database.execute(
                "UPDATE settings SET expiry_deadline = ?, mpp_timeout_s = ?", (settings.expiry_deadline, settings.mpp_timeout_s)
            )

    def settings(self) -> Settings:
        """The options."""
        with self._lock:
            return Settings(*self._database.execute("SELECT expiry_deadline, mpp_timeout_s FROM settings").fetchone())

    def insert(self, invoice: Invoice, bolt11: str, min_cltv: int | None, created_at: UnixTime) -> None:
        """A new invoice. `min_cltv` is what was said beside it, if anything was. Raises Refused if the hash is in use."""
        with self._transaction():
            if self.get(invoice.payment_hash) is not None:
                raise Refused("UNIQUE constraint failed: invoices.payment_hash")
            row = {
                "payment_hash": invoice.payment_hash,
                "payment_secret": invoice.payment_secret,
                "invoice": bolt11,
                "state": invoice.state.value,
                "amount_msat": invoice.amount_msat,
                "final_cltv": invoice.min_cltv,
                "min_cltv": min_cltv,
                "expires_at": invoice.expires_at,
                "created_at": created_at,
                "revision": self._next_revision(),
            }
            sql = f"INSERT INTO invoices ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})"
            self._database.execute(sql, tuple(row.values()))

    def get(self, payment_hash: Digest) -> Invoice | None:
        """The invoice of a hash."""
        with self._lock:
            found = self._one(payment_hash)
            return None if found is None else found[1]

    def change(self, payment_hash: Digest, rule: Callable[[Invoice], Invoice], holder: str = "", held: Key | None = None) -> Invoice | None:
        """Apply `rule`, and note that `holder` has the HTLC `held` in hand. None if there is no such invoice; what `rule` raises undoes everything."""
        with self._transaction():
            found = self._one(payment_hash)
            if found is None:
                return None
            number, before = found
            after = rule(before)
            if after != before:
                self._write(number, before, after)
            if held is not None:
                sql = "UPDATE htlcs SET holder = ? WHERE invoice_id = ? AND number = ? AND onion = ? AND holder != ?"
                self._database.execute(sql, (holder, number, held.number, held.onion, holder))
            return after

    def unheld(self, payment_hash: Digest, holders: Collection[str]) -> tuple[Key, ...]:
        """Its HTLCs that are accepted and that none of `holders` has in hand."""
        marks = ", ".join("?" * len(holders))
        sql = (
            "SELECT number, onion FROM htlcs WHERE state = 'accepted' AND invoice_id = (SELECT id FROM invoices WHERE payment_hash = ?)"
            f" AND holder NOT IN ({marks})"
        )
        with self._lock:
            rows = self._database.execute(sql, (payment_hash, *holders)).fetchall()
        return tuple(Key(number, Digest(onion)) for number, onion in rows)

    def revision(self) -> int:
        """The highest revision."""
        with self._lock:
            return int(self._database.execute("SELECT last FROM revisions").fetchone()[0])

    def changed_since(self, revision: int) -> tuple[Digest, ...]:
        """Hashes of the invoices with a higher revision."""
        return self._hashes("SELECT payment_hash FROM invoices WHERE revision > ?", revision)

    def expiring(self, height: BlockHeight) -> tuple[Digest, ...]:
        """Hashes of the invoices that hold an HTLC which expires at `height` or before."""
        return self._hashes(_WITH_HELD + " WHERE htlcs.state = 'accepted' AND htlcs.cltv_expiry <= ?", height)

    def partial(self) -> tuple[Digest, ...]:
        """Hashes of the invoices that hold a part of a payment."""
        return self._hashes(_WITH_HELD + " WHERE htlcs.state = 'accepted' AND invoices.state = 'unpaid'")

    def orphaned(self, holders: Collection[str]) -> tuple[Digest, ...]:
        """Hashes of the invoices with accepted HTLCs that none of `holders` has in hand."""
        marks = ", ".join("?" * len(holders))
        return self._hashes(_WITH_HELD + f" WHERE htlcs.state = 'accepted' AND htlcs.holder NOT IN ({marks})", *holders)

    def rows(self, payment_hash: Digest | None = None) -> tuple[Row, ...]:
        """Everything, or one invoice, in the order in which they were made: two queries, however many there are."""
        which, values = ("", ()) if payment_hash is None else (" WHERE payment_hash = ?", (payment_hash,))
        htlcs: dict[int, list[tuple[int, Htlc]]] = defaultdict(list)
        with self._transaction(immediate=False):
            sql = f"SELECT id, invoice_id, {_HTLC} FROM htlcs WHERE invoice_id IN (SELECT id FROM invoices{which}) ORDER BY id"
            for number, invoice_id, *htlc in self._database.execute(sql, values):
                htlcs[invoice_id].append((number, _htlc(*htlc)))
            sql = f"SELECT invoice, min_cltv, created_at, settled_at, {_INVOICE} FROM invoices{which} ORDER BY id"
            return tuple(_row(*row, htlcs[row[4]]) for row in self._database.execute(sql, values))

    def clean(self, before: UnixTime) -> int:
        """Remove cancelled invoices that were made before then, and say how many."""
        with self._transaction():
            return self._database.execute("DELETE FROM invoices WHERE state = 'cancelled' AND created_at <= ?", (before,)).rowcount

    def _one(self, payment_hash: Digest) -> tuple[int, Invoice] | None:
        row = self._database.execute(f"SELECT {_INVOICE} FROM invoices WHERE payment_hash = ?", (payment_hash,)).fetchone()
        if row is None:
            return None
        htlcs = self._database.execute(f"SELECT {_HTLC} FROM htlcs WHERE invoice_id = ? ORDER BY id", (row[0],)).fetchall()
        return row[0], _invoice(tuple(_htlc(*htlc) for htlc in htlcs), *row[1:])

    def _write(self, number: int, before: Invoice, after: Invoice) -> None:
        settled_at = int(time.time()) if after.state is State.PAID and before.state is not State.PAID else None
        self._database.execute(
            "UPDATE invoices SET state = ?, preimage = ?, settled_at = coalesce(settled_at, ?), revision = ? WHERE id = ?",
            (after.state.value, after.preimage, settled_at, self._next_revision(), number),
        )
        known = {htlc.key for htlc in before.htlcs}
        for htlc in after.htlcs:
            if htlc.key in known:
                sql = "UPDATE htlcs SET state = ?, failure = ? WHERE invoice_id = ? AND number = ? AND onion = ?"
                self._database.execute(sql, (htlc.state.value, htlc.failure.value, number, htlc.key.number, htlc.key.onion))
            else:
                sql = f"INSERT INTO htlcs (invoice_id, holder, {_HTLC}) VALUES (?, '', ?, ?, ?, ?, ?, ?, ?, ?, ?)"
                values = (htlc.key.number, htlc.key.onion, htlc.scid, htlc.amount_msat, htlc.total_msat, htlc.cltv_expiry, htlc.received_at)
                self._database.execute(sql, (number, *values, htlc.state.value, htlc.failure.value))

    def _next_revision(self) -> int:
        """One that no invoice ever had, not even one that was cleaned away."""
        self._database.execute("UPDATE revisions SET last = last + 1")
        return self.revision()

    def _hashes(self, sql: str, *values: Any) -> tuple[Digest, ...]:
        with self._lock:
            return tuple(Digest(row[0]) for row in self._database.execute(sql, values).fetchall())

    @contextmanager
    def _transaction(self, *, immediate: bool = True) -> Iterator[None]:
        with self._lock:
            self._database.execute("BEGIN IMMEDIATE" if immediate else "BEGIN")
            try:
                yield
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise


_WITH_HELD: Final = "SELECT DISTINCT invoices.payment_hash FROM htlcs JOIN invoices ON invoices.id = htlcs.invoice_id"


def _row(bolt11: str, explicit: int | None, created_at: UnixTime, settled_at: UnixTime | None, number: int, *rest: Any) -> Row:
    *invoice, htlcs = rest
    return Row(
        id=number,
        bolt11=bolt11,
        explicit_min_cltv=explicit,
        created_at=created_at,
        settled_at=settled_at,
        invoice=_invoice(tuple(htlc for _, htlc in htlcs), *invoice),
        htlc_ids=tuple(number for number, _ in htlcs),
    )


def _invoice(
    htlcs: tuple[Htlc, ...],
    payment_hash: Digest,
    secret: str,
    preimage: str | None,
    state: str,
    amount: Msat,
    min_cltv: int,
    expires_at: UnixTime,
) -> Invoice:
    return Invoice(payment_hash, secret, amount, min_cltv, expires_at, State(state), preimage, htlcs)


def _htlc(
    number: int, onion: Digest, scid: str, msat: Msat, total: Msat, expiry: BlockHeight, created_at: UnixTime, state: str, failure: str
) -> Htlc:
    return Htlc(Key(number, onion), scid, msat, total, expiry, created_at, State(state), Failure(failure))
