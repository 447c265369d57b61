"""The port `Signer`: signs Nostr events with the node's key (NIP-01, BIP-340)."""

from __future__ import annotations

from nostrain.crypto import schnorr
from nostrain.keys.store import RootSecret
from nostrain.protocol.event import Draft, Event
from nostrain.units import Pubkey
from nostrain.wire.event import event_id


class NostrSigner:
    """Implements `ports.signer.Signer`."""

    def __init__(self, root: RootSecret) -> None:
        self._root = root
        self._pubkey = Pubkey(schnorr.public_key(root.nostr_key()).hex())

    @property
    def pubkey(self) -> Pubkey:
        """The x-only key that authors our events."""
        return self._pubkey

    def sign(self, draft: Draft) -> Event:
        """The signed event; the same draft gives the same bytes. Raises LocalProtocolError when the draft breaks a bound of NIP-01 or ours."""
        identity = event_id(self._pubkey, draft)
        signature = schnorr.sign(self._root.nostr_key(), bytes.fromhex(identity)).hex()
        return Event(identity, self._pubkey, draft.created_at, draft.kind, draft.tags, draft.content, signature)
