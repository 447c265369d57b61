"""Invoices, HTLCs and hook calls to test the hold plugin with."""

from __future__ import annotations

import hashlib
from typing import Any

from nostrain.holdplugin.invoices import Invoice, Key, Offer
from nostrain.units import BlockHeight, Digest, Msat, UnixTime

PREIMAGE = "11" * 32
HASH = Digest(hashlib.sha256(bytes.fromhex(PREIMAGE)).hexdigest())
SECRET = "22" * 32
AMOUNT = Msat(100_000)
HEIGHT = BlockHeight(800_000)
NOW = UnixTime(1_800_000_000)
MIN_CLTV = 80
DEADLINE = 24


def invoice(payment_hash: Digest = HASH) -> Invoice:
    """One that nobody has paid anything for."""
    return Invoice(payment_hash, SECRET, AMOUNT, MIN_CLTV, UnixTime(NOW + 3_600))


def key(number: int) -> Key:
    """Of the HTLC with that number."""
    return Key(number, Digest(hashlib.sha256(bytes.fromhex(f"{number:064x}")).hexdigest()))


def offer(number: int = 0, amount: int = AMOUNT, payment_hash: Digest = HASH, **other: Any) -> Offer:
    """An HTLC that fits `invoice`."""
    terms: dict[str, Any] = {
        "key": key(number),
        "scid": "1x1x1",
        "payment_hash": payment_hash,
        "amount_msat": Msat(amount),
        "cltv_expiry": BlockHeight(HEIGHT + MIN_CLTV),
        "height": HEIGHT,
        "payment_secret": SECRET,
        "total_msat": AMOUNT,
        "forward_msat": Msat(amount),
        "outgoing_cltv": BlockHeight(HEIGHT + MIN_CLTV),
    }
    return Offer(**(terms | other))


def call(number: int = 0, amount: int = AMOUNT, payment_hash: str = HASH, **onion: Any) -> dict[str, Any]:
    """The same as the hook's parameters."""
    return {
        "peer_id": "02" + "33" * 32,
        "onion": {
            "payload": "",
            "type": "tlv",
            "forward_msat": amount,
            "outgoing_cltv_value": HEIGHT + MIN_CLTV,
            "total_msat": AMOUNT,
            "payment_secret": SECRET,
            "next_onion": "00" * 1366,
            "shared_secret": f"{number:064x}",
        }
        | onion,
        "htlc": {
            "short_channel_id": "1x1x1",
            "id": number,
            "amount_msat": amount,
            "cltv_expiry": HEIGHT + MIN_CLTV,
            "cltv_expiry_relative": MIN_CLTV,
            "payment_hash": payment_hash,
        },
    }
