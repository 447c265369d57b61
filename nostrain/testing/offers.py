"""The BOLT 12 half of `testing.lightning`: offers, invoices made from them, and payments of those, all real strings on the fake ledger."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from coincurve import PrivateKey

from nostrain.crypto import schnorr
from nostrain.errors import RemoteProtocolError
from nostrain.ports.lightning import FetchedInvoice, Income
from nostrain.units import Digest, Msat, UnixTime
from nostrain.wire.bolt12 import BlindedPath
from nostrain.wire.bolt12_invoice import DEFAULT_EXPIRY_S, check_answers_untrusted, encode_invoice, parse_invoice_untrusted
from nostrain.wire.bolt12_offer import encode_offer, parse_offer_untrusted

NETWORK: Final = "regtest"


@dataclass
class Fetched:
    """An invoice from an offer. `payer` is set once money has left; `pending` until it has arrived or come back."""

    payee: str
    amount_msat: Msat
    preimage: str
    expires_at: UnixTime
    description: str
    payer: str | None = None
    pending: bool = False
    failed: bool = False


@dataclass
class OfferBook:
    """All offers and their invoices. While `stuck`, payments neither arrive nor come back; `payments` are (payer, hash) as they were made."""

    stuck: bool = False
    expiry_s: int = DEFAULT_EXPIRY_S
    issuers: dict[str, str] = field(default_factory=dict)
    fetched: dict[Digest, Fetched] = field(default_factory=dict)
    payments: list[tuple[str, Digest]] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=itertools.count)
    came: dict[str, list[Income]] = field(default_factory=dict)
    """What each node was paid by invoices that are not held, of offers and others."""

    def offer(self, payee: str, description: str) -> str:
        """The offer of a node under a description."""
        text = encode_offer(NETWORK, description, node_key(payee).public_key.format().hex())
        self.issuers[text] = payee
        return text

    def issuer(self, offer: str) -> str:
        """Whose offer it is. Raises RemoteProtocolError for one that nobody here made."""
        parse_offer_untrusted(offer)
        if offer not in self.issuers:
            raise RemoteProtocolError("offer", "nobody answers for it")
        return self.issuers[offer]

    def invoice(self, payer: str, offer: str, amount_msat: Msat, now: UnixTime) -> FetchedInvoice:
        """A new invoice. Raises RemoteProtocolError."""
        payee = self.issuer(offer)
        key, number = node_key(payee), next(self.numbers)
        terms = parse_offer_untrusted(offer)
        preimage = hashlib.sha256(f"{offer}/{payer}/{number}".encode()).digest()
        payment_hash, node_id = Digest(hashlib.sha256(preimage).hexdigest()), key.public_key.format().hex()
        text = encode_invoice(
            terms,
            network=NETWORK,
            payer_id=node_key(payer).public_key.format().hex(),
            metadata=number.to_bytes(16, "big"),
            amount_msat=amount_msat,
            payment_hash=payment_hash,
            created_at=now,
            expiry_s=self.expiry_s,
            node_id=node_id,
            path=BlindedPath(node_id, node_id, ((node_id, preimage.hex()),)),
            sign=lambda message: schnorr.sign(key.secret, message),
        )
        check_answers_untrusted(parse_invoice_untrusted(text), terms, amount_msat, NETWORK)
        self.fetched[payment_hash] = Fetched(payee, amount_msat, preimage.hex(), UnixTime(now + self.expiry_s), terms.description or "")
        return FetchedInvoice(text, payment_hash)

    def begin(self, payer: str, row: Fetched, payment_hash: Digest, balances: dict[str, Msat], now: UnixTime) -> bool:
        """Send the money, once; whether it was sent now. What cannot be sent has failed for ever."""
        if row.payer is not None or row.failed:
            return False
        if now >= row.expires_at or balances.get(payer, 0) < row.amount_msat:
            row.failed = True
            return False
        balances[payer] = Msat(balances[payer] - row.amount_msat)
        row.payer, row.pending = payer, True
        self.payments.append((payer, payment_hash))
        return True

    def arrive(self, balances: dict[str, Msat]) -> None:
        """Let whatever is on its way arrive, unless it is stuck."""
        for payment_hash, row in self.fetched.items():
            if row.pending and not self.stuck:
                row.pending = False
                self.take(row.payee, f"offer/{payment_hash}", row.description, payment_hash, row.amount_msat)
                balances[row.payee] = Msat(balances.get(row.payee, 0) + row.amount_msat)

    def take(self, payee: str, label: str, description: str, payment_hash: Digest, amount_msat: Msat) -> None:
        """A payment came: the next one of the payee's."""
        came = self.came.setdefault(payee, [])
        came.append(Income(len(came) + 1, label, description, payment_hash, amount_msat))

    def under_way(self) -> int:
        """What has left and not arrived."""
        return sum(row.amount_msat for row in self.fetched.values() if row.pending)


def node_key(name: str) -> PrivateKey:
    """The key of a fake node."""
    return PrivateKey(hashlib.sha256(b"nostrain/testing/node/" + name.encode()).digest())
