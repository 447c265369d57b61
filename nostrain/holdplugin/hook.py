"""The hook `htlc_accepted`: its request read, its reply written.

lightningd ends itself (`fatal`) at a reply that it cannot read, so there are exactly three, made here and nowhere else.
Source: Core Lightning, `lightningd/peer_htlcs.c` (`htlc_accepted_hook_serialize`, `htlc_accepted_hook_deserialize`); BOLT 4 for the failures.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

from nostrain.errors import RemoteProtocolError
from nostrain.holdplugin.invoices import Fail, Failure, Key, Offer, Resolve
from nostrain.units import BlockHeight, Digest, Msat, is_hex32

MPP_TIMEOUT: Final = 23
INCORRECT_OR_UNKNOWN_PAYMENT_DETAILS: Final = 0x4000 | 15

Reply = dict[str, str]


def parse_offer_untrusted(params: object) -> Offer | None:
    """The HTLC, or None for one that is not for us: its onion names a next hop. Raises RemoteProtocolError for what cannot be an HTLC."""
    try:
        return _parse(params)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RemoteProtocolError("htlc_accepted", f"{type(error).__name__}: {error}") from error


def _parse(params: Any) -> Offer | None:
    onion, htlc = params["onion"], params["htlc"]
    if "forward_to" in params or "short_channel_id" in onion or "next_node_id" in onion:
        return None
    payment_hash, shared_secret = htlc["payment_hash"].lower(), onion["shared_secret"].lower()
    if not is_hex32(payment_hash) or not is_hex32(shared_secret):
        raise ValueError("a hash or secret that is not 32 bytes")
    secret, total, expiry = onion.get("payment_secret"), onion.get("total_msat"), int(htlc["cltv_expiry"])
    return Offer(
        key=Key(int(htlc["id"]), Digest(hashlib.sha256(bytes.fromhex(shared_secret)).hexdigest())),
        scid=str(htlc["short_channel_id"]),
        payment_hash=Digest(payment_hash),
        amount_msat=_msat(htlc["amount_msat"]),
        cltv_expiry=BlockHeight(expiry),
        height=BlockHeight(expiry - int(htlc["cltv_expiry_relative"])),
        payment_secret=None if secret is None else str(secret).lower(),
        total_msat=None if total is None else _msat(total),
        forward_msat=_msat(onion.get("forward_msat", 0)),
        outgoing_cltv=BlockHeight(int(onion.get("outgoing_cltv_value", 0))),
    )


def _msat(value: Any) -> Msat:
    """lightningd before 23.08 wrote the unit behind the number."""
    return Msat(int(str(value).removesuffix("msat")))


def go_on() -> Reply:
    """Not ours: the next plugin decides, or lightningd."""
    return {"result": "continue"}


def resolve(answer: Resolve) -> Reply:
    """Claim the HTLC."""
    assert is_hex32(answer.preimage), "the store holds preimages of 32 bytes"
    return {"result": "resolve", "payment_key": answer.preimage}


def fail(answer: Fail, amount_msat: Msat, height: BlockHeight) -> Reply:
    """Send it back, with the failure message of BOLT 4: code, then for wrong details the HTLC's amount and the height."""
    if answer.failure is Failure.MPP_TIMEOUT:
        return {"result": "fail", "failure_message": MPP_TIMEOUT.to_bytes(2, "big").hex()}
    message = INCORRECT_OR_UNKNOWN_PAYMENT_DETAILS.to_bytes(2, "big") + amount_msat.to_bytes(8, "big") + max(height, 0).to_bytes(4, "big")
    return {"result": "fail", "failure_message": message.hex()}


def height_of_block_untrusted(params: Mapping[str, Any]) -> BlockHeight:
    """The height in a `block_added` notification. Raises RemoteProtocolError."""
    try:
        return BlockHeight(int(params["block_added"]["height"]))
    except (KeyError, TypeError, ValueError) as error:
        raise RemoteProtocolError("block_added", repr(error)) from error
