"""Preimages that say what they paid for, for BUD-07: a client shows the preimage alone, and no state is kept for invoices that nobody pays.

    preimage = expires (u40) ‖ size (u48) ‖ 5 random bytes ‖ first 16 bytes of HMAC-SHA256(key, use)

The key derives from our root secret and the first half, so only we can make one, and the payer learns it by paying. It is good for the very
request that it was made for.
"""

from __future__ import annotations

import hmac
from hashlib import sha256
from typing import Final

from nostrain.crypto.caveats import Toll
from nostrain.ports.tickets import TicketKeys

RANDOM_BYTES: Final = 5
_PREFIX: Final = 16
_LARGEST_TIME: Final = (1 << 40) - 1
_LARGEST_SIZE: Final = (1 << 48) - 1


def make_preimage(keys: TicketKeys, toll: Toll, random: bytes) -> bytes:
    """32 bytes. `random` has RANDOM_BYTES and makes invoices for the same request differ; sizes above 2⁴⁸ − 1 do not occur."""
    size, expires = min(toll.size, _LARGEST_SIZE), min(toll.expires, _LARGEST_TIME)
    prefix = expires.to_bytes(5, "big") + size.to_bytes(6, "big") + random
    return prefix + _proof(keys, prefix, toll.method, toll.path, toll.sha256)


def read_preimage_untrusted(keys: TicketKeys, preimage: bytes, method: str, path: str, digest: str | None) -> Toll | None:
    """What the preimage paid for, if we made it for this request; else None. Whether it has expired is the caller's question."""
    prefix, proof = preimage[:_PREFIX], preimage[_PREFIX:]
    if not hmac.compare_digest(proof, _proof(keys, prefix, method, path, digest)):
        return None
    return Toll(method, path, digest, int.from_bytes(prefix[5:11], "big"), int.from_bytes(prefix[:5], "big"))


def _proof(keys: TicketKeys, prefix: bytes, method: str, path: str, digest: str | None) -> bytes:
    use = "\0".join((method, path, digest or "")).encode()
    key = keys.ticket_key(sha256(b"nostrain/toll/preimage" + prefix).digest())
    return hmac.digest(key, use, "sha256")[:_PREFIX]
