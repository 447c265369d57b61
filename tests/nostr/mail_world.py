"""People with mailboxes, and wraps that are wrong in every layer."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import msgspec
import nostr_sdk

from nostrain.keys.mailbox import SEAL, WRAP, GiftWraps
from nostrain.keys.signer import NostrSigner
from nostrain.keys.store import RootSecret
from nostrain.protocol.event import Draft, Event, Tags
from nostrain.testing.entropy import SeededEntropy
from nostrain.units import Pubkey, UnixTime
from nostrain.wire.event import encode_event

NOW = UnixTime(1_800_000_000)


class FixedClock:
    """Always the same time."""

    def now(self) -> UnixTime:
        return NOW

    async def sleep_until(self, when: UnixTime) -> None:
        raise AssertionError("nobody waits here")


class Person:
    """Someone with a key, who signs letters; one a test and name."""

    def __init__(self, name: str) -> None:
        self.root = RootSecret(sha256(name.encode()).digest())
        self.signer = NostrSigner(self.root)
        self.pubkey: Pubkey = self.signer.pubkey
        self.mailbox = GiftWraps(self.root, FixedClock(), SeededEntropy(0, name).draw)

    def letter(self, content: str, *, kind: int = 8680, created_at: int = NOW) -> Event:
        return self.signer.sign(Draft(UnixTime(created_at), kind, (("t", "nostrain"),), content))

    def encrypt(self, recipient: Pubkey, text: str) -> str:
        secret = nostr_sdk.SecretKey.from_bytes(self.root.nostr_key())
        public = nostr_sdk.PublicKey.parse(recipient)
        return str(nostr_sdk.nip44_encrypt(secret, public, text, nostr_sdk.Nip44Version.V2))

    def signs(self, kind: int, content: str, tags: Tags = ()) -> Event:
        return self.signer.sign(Draft(NOW, kind, tags, content))


def rumor_of(author: Pubkey, content: str, **changes: Any) -> str:
    """A rumor as JSON."""
    fields = {"pubkey": author, "created_at": NOW, "kind": 8680, "tags": [], "content": content}
    return msgspec.json.encode(fields | changes).decode()


def sealed(sender: Person, recipient: Pubkey, rumor: str, *, kind: int = SEAL, tags: Tags = ()) -> str:
    """A seal as JSON."""
    return encode_event(sender.signs(kind, sender.encrypt(recipient, rumor), tags)).decode()


def wrapped(recipient: Pubkey, seal: str, *, kind: int = WRAP, addressee: Pubkey | None = None) -> Event:
    """A wrap of any text, by a passer-by."""
    passer_by = Person("passer-by")
    return passer_by.signs(kind, passer_by.encrypt(recipient, seal), (("p", addressee or recipient),))
