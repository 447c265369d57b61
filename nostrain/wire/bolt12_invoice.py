"""BOLT 12 invoices (`lni1…`): a strict reader, the check that one answers an offer, and the writer of what the simnet makes.

Source: BOLT 12, "Invoices". Fields that only concern how the payment finds its way are checked for their form; the node does the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from nostrain.crypto import schnorr
from nostrain.errors import RemoteProtocolError
from nostrain.units import Digest, Msat, UnixTime
from nostrain.wire.bolt12 import (
    CHAIN_BYTES,
    BlindedPath,
    Records,
    Values,
    merkle_root,
    read_records_untrusted,
    signature_hash,
    write_integer,
    write_path,
    write_records,
)
from nostrain.wire.bolt12_offer import GENESIS, OFFER_RANGES, OFFER_TYPES, Bolt12Offer
from nostrain.wire.tlv import Reader

PREFIX: Final = "lni"
DEFAULT_EXPIRY_S: Final = 7_200
REQUEST_METADATA: Final = 0
REQUEST_CHAIN, REQUEST_AMOUNT, REQUEST_FEATURES, REQUEST_QUANTITY, PAYER_ID = range(80, 90, 2)
INVOICE_PATHS, BLINDED_PAY, CREATED_AT, RELATIVE_EXPIRY, PAYMENT_HASH, AMOUNT, FALLBACKS, FEATURES, NODE_ID = range(160, 178, 2)
SIGNATURE: Final = 240
_TYPES: Final = OFFER_TYPES | {REQUEST_METADATA, 90, SIGNATURE} | set(range(80, 90, 2)) | set(range(160, 178, 2))
_RANGES: Final = (range(240), range(SIGNATURE, SIGNATURE + 1), range(1_000_000_000, 4_000_000_000))
_MPP: Final = 16
_PAYINFO_BYTES: Final = 26


class Bolt12Invoice(msgspec.Struct, frozen=True):
    """What an invoice says. `node_id` is the key that signed it; `chain` a genesis hash in wire order."""

    records: Records
    payment_hash: Digest
    amount_msat: Msat
    created_at: UnixTime
    expiry_s: int
    node_id: str
    chain: str
    paths: tuple[BlindedPath, ...]

    @property
    def expires_at(self) -> UnixTime:
        """From when on the payee need not take it any more."""
        return UnixTime(self.created_at + self.expiry_s)


def parse_invoice_untrusted(text: str) -> Bolt12Invoice:
    """Read an invoice whose signature is valid. Raises RemoteProtocolError; its date is the caller's to look at."""
    records = read_records_untrusted(PREFIX, text)
    values = Values(records, "invoice")
    values.check_types(_TYPES, _RANGES)
    values.features(FEATURES, known=(_MPP,))
    paths = values.paths(INVOICE_PATHS)
    _check_payinfo(Reader(values.raw(BLINDED_PAY), "invoice"), len(paths))
    node_id = values.point(NODE_ID)
    signed = signature_hash("invoice", merkle_root(records))
    if not schnorr.verify(bytes.fromhex(node_id)[1:], signed, values.raw(SIGNATURE, 64)):
        raise values.fault("the signature is not valid")
    return Bolt12Invoice(
        records=records,
        payment_hash=Digest(values.raw(PAYMENT_HASH, 32).hex()),
        amount_msat=values.amount(AMOUNT),
        created_at=UnixTime(values.integer(CREATED_AT, 5)),
        expiry_s=values.integer(RELATIVE_EXPIRY, 4) if values.has(RELATIVE_EXPIRY) else DEFAULT_EXPIRY_S,
        node_id=node_id,
        chain=values.raw(REQUEST_CHAIN, CHAIN_BYTES).hex() if values.has(REQUEST_CHAIN) else GENESIS["bitcoin"],
        paths=paths,
    )


def check_answers_untrusted(invoice: Bolt12Invoice, offer: Bolt12Offer, amount_msat: Msat, network: str) -> None:
    """Raises RemoteProtocolError unless the invoice is for exactly that amount, on that network, made from this offer and signed by its key."""
    mirrored = {kind: value for kind, value in invoice.records.items() if any(kind in allowed for allowed in OFFER_RANGES)}
    if mirrored != dict(offer.records):
        raise RemoteProtocolError("invoice", "was made from another offer")
    if invoice.node_id not in offer.signers:
        raise RemoteProtocolError("invoice", f"is signed by {invoice.node_id[:8]}, not by the offer's node")
    if invoice.amount_msat != amount_msat:
        raise RemoteProtocolError("invoice", f"is for {invoice.amount_msat} msat, {amount_msat} were asked for")
    if invoice.chain != GENESIS[network]:
        raise RemoteProtocolError("invoice", f"is not for {network}")


def encode_invoice(
    offer: Bolt12Offer,
    *,
    network: str,
    payer_id: str,
    metadata: bytes,
    amount_msat: Msat,
    payment_hash: Digest,
    created_at: UnixTime,
    expiry_s: int,
    node_id: str,
    path: BlindedPath,
    sign: Callable[[bytes], bytes],
) -> str:
    """An invoice for `offer`, with one path; `sign` makes the BIP-340 signature of a 32-byte message with the key of `node_id`."""
    fees, delta, least, features = bytes(8), bytes(2), bytes(8), bytes(2)
    payinfo = fees + delta + least + amount_msat.to_bytes(8, "big") + features
    records: dict[int, bytes] = {
        **offer.records,
        REQUEST_METADATA: metadata,
        REQUEST_CHAIN: bytes.fromhex(GENESIS[network]),
        REQUEST_AMOUNT: write_integer(amount_msat),
        PAYER_ID: bytes.fromhex(payer_id),
        INVOICE_PATHS: write_path(path),
        BLINDED_PAY: payinfo,
        CREATED_AT: write_integer(created_at),
        RELATIVE_EXPIRY: write_integer(expiry_s),
        PAYMENT_HASH: bytes.fromhex(payment_hash),
        AMOUNT: write_integer(amount_msat),
        NODE_ID: bytes.fromhex(node_id),
    }
    ordered = dict(sorted(records.items()))
    return write_records(PREFIX, ordered | {SIGNATURE: sign(signature_hash("invoice", merkle_root(ordered)))})


def _check_payinfo(reader: Reader, paths: int) -> None:
    """One entry for each path: fees, CLTV delta, limits, features."""
    count = 0
    while reader.more():
        reader.take(_PAYINFO_BYTES)
        reader.take(reader.integer(2))
        count += 1
    if count != paths:
        raise reader.fault(f"{count} sets of fees for {paths} paths")
