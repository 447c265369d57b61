"""What needs the node's secrets: the Nostr key, the oracle key and its nonces, the hash chain. Implemented by `keys/`, which alone holds them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from nostrain.protocol.event import Draft, Event
from nostrain.units import Digest, Pubkey, UnixTime


class Signer(Protocol):
    """Signs Nostr events."""

    @property
    def pubkey(self) -> Pubkey:
        """The x-only key that authors our events."""
        ...

    def sign(self, draft: Draft) -> Event:
        """The signed event. Deterministic: the same draft gives the same bytes."""
        ...


class Oracle(Protocol):
    """A DLC oracle with a key of its own, and a hash chain for evaluation seeds (design sections 2.5 and 6)."""

    @property
    def pubkey(self) -> Pubkey:
        """The oracle's x-only key P_j."""
        ...

    def endorse(self, nostr_pubkey: Pubkey, run: str) -> str:
        """Schnorr signature (128 hex) by the oracle key over tagged_hash("nostrain/oracle", nostr pubkey ‖ sha256(run)):
        the oracle's half of the mutual signature in the enrolment."""
        ...

    def announce(self, event_id: str, digits: int, maturity: UnixTime) -> bytes:
        """The oracle_announcement TLV for `event_id` (`nostrain/1/…`): base 2, unsigned, `digits` digits, one nonce each.

        Deterministic in its arguments; journalled before it is returned.
        """
        ...

    def attest(self, announcement: bytes, outcome: Sequence[int]) -> bytes:
        """The oracle_attestation TLV that signs `outcome` (0/1 per digit, thermometer prefix) for our own `announcement`.

        (nonce, outcome) is journalled under a unique constraint before the signature exists: the same outcome again gives the same bytes.

        Raises LocalProtocolError: another outcome was signed for a nonce of this announcement, the announcement is not ours,
        or it was announced before a restore from backup.
        """
        ...

    def chain_end(self, run: str, length: int) -> Digest:
        """End of the hash chain for `run`: H^length(seed). Published in the enrolment."""
        ...

    def chain_link(self, run: str, length: int, index: int) -> Digest:
        """b with H^index(b) = chain_end, for 1 <= index <= length."""
        ...
