"""Gift wraps (NIP-59): seals our signed events to one recipient, and opens what was sealed to us. The encryption is nostr-sdk's NIP-44.

    wrap   kind 1059  by a key of its own, tagged `p` = recipient, backdated     NIP-44 of the seal
    seal   kind 13    by us, no tags, backdated                                  NIP-44 of the rumor
    rumor  unsigned   by us                                                      the whole signed event as JSON

The rumor carries a complete *signed* event, because a bare rumor proves nothing to anybody else (design section 6).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Final

import msgspec
import nostr_sdk

from nostrain.crypto import schnorr
from nostrain.crypto.points import InvalidScalar
from nostrain.errors import LocalProtocolError, RemoteProtocolError
from nostrain.keys.signer import NostrSigner
from nostrain.keys.store import RootSecret
from nostrain.ports.clock import Clock
from nostrain.protocol.event import Draft, Event
from nostrain.units import Pubkey, UnixTime, is_hex32
from nostrain.wire.event import encode_event, event_id, parse_event_untrusted

SEAL: Final = 13
WRAP: Final = 1059
MAX_BACKDATING_S: Final = 2 * 24 * 3600

MAX_WRAPPED_BYTES: Final = 28_672
"""Largest rumor (the event as a JSON string, and its frame): padded and encrypted twice, a larger one would not fit into an event."""


class _Rumor(msgspec.Struct):
    """An unsigned event. Its id, where it has one, binds nothing."""

    pubkey: Pubkey
    created_at: UnixTime
    kind: int
    tags: tuple[tuple[str, ...], ...]
    content: str


class GiftWraps:
    """Our mailbox. Any thread may call it; a call takes some milliseconds of CPU for each 10 KB."""

    def __init__(self, root: RootSecret, clock: Clock, draw: Callable[[int], bytes] = secrets.token_bytes) -> None:
        """`draw` makes the wraps' keys and their backdating; NIP-44's own nonces come from the operating system."""
        self._root, self._clock, self._draw = root, clock, draw
        self._signer = NostrSigner(root)

    @property
    def pubkey(self) -> Pubkey:
        """The key that mail is addressed to."""
        return self._signer.pubkey

    def wrap(self, event: Event, recipient: Pubkey) -> Event:
        """A gift wrap of our own `event` for `recipient`; another one each time.

        Raises LocalProtocolError: the event is not ours, too large, or the recipient is no key.
        """
        if event.pubkey != self.pubkey:
            raise LocalProtocolError("mail: only our own events can be sealed")
        rumor = Draft(created_at=event.created_at, kind=event.kind, tags=(), content=encode_event(event).decode())
        text = msgspec.json.encode({"id": event_id(self.pubkey, rumor), "pubkey": self.pubkey, **msgspec.to_builtins(rumor)}).decode()
        if len(text.encode()) > MAX_WRAPPED_BYTES:
            raise LocalProtocolError(f"mail: {len(text.encode())} bytes, a gift wrap holds {MAX_WRAPPED_BYTES}")
        sealed = _encrypt(self._root.nostr_key(), recipient, text)
        seal = self._signer.sign(Draft(created_at=self._backdated(), kind=SEAL, tags=(), content=sealed))
        secret = self._fresh_key()
        content = _encrypt(secret, recipient, encode_event(seal).decode())
        return _signed(secret, Draft(created_at=self._backdated(), kind=WRAP, tags=(("p", recipient),), content=content))

    def unwrap_untrusted(self, wrap: Event) -> Event:
        """The verified event inside of a verified gift wrap, by the author of the seal.

        Raises RemoteProtocolError naming the first layer that is wrong.
        """
        if wrap.kind != WRAP or wrap.tag("p") != self.pubkey:
            raise RemoteProtocolError("gift wrap", "not one, or not for us")
        seal = _inner(_decrypt(self._root.nostr_key(), wrap.pubkey, wrap.content, "gift wrap"), "seal")
        if seal.kind != SEAL or seal.tags:
            raise RemoteProtocolError("seal", f"of kind {seal.kind} with {len(seal.tags)} tags", whose=seal.pubkey)
        text = _decrypt(self._root.nostr_key(), seal.pubkey, seal.content, "seal", whose=seal.pubkey)
        try:
            rumor = msgspec.json.decode(text, type=_Rumor)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            raise RemoteProtocolError("rumor", "not an event", whose=seal.pubkey) from None
        if rumor.pubkey != seal.pubkey:
            raise RemoteProtocolError("rumor", "not by the author of its seal", whose=seal.pubkey)
        event = _inner(rumor.content, "letter", whose=seal.pubkey)
        if event.pubkey != seal.pubkey:
            raise RemoteProtocolError("letter", "signed by someone else than the author of its seal", whose=seal.pubkey)
        return event

    def _backdated(self) -> UnixTime:
        """A time in the last two days, so that nobody learns from it who answers whom."""
        return UnixTime(self._clock.now() - int.from_bytes(self._draw(4), "big") % MAX_BACKDATING_S)

    def _fresh_key(self) -> bytes:
        while True:
            secret = self._draw(32)
            try:
                schnorr.public_key(secret)
            except InvalidScalar:
                continue
            return secret


def _signed(secret: bytes, draft: Draft) -> Event:
    pubkey = Pubkey(schnorr.public_key(secret).hex())
    identity = event_id(pubkey, draft)
    return Event(
        identity, pubkey, draft.created_at, draft.kind, draft.tags, draft.content, schnorr.sign(secret, bytes.fromhex(identity)).hex()
    )


def _inner(text: str, what: str, *, whose: str = "") -> Event:
    try:
        return parse_event_untrusted(text)
    except RemoteProtocolError as error:
        raise RemoteProtocolError(what, error.reason, whose=whose) from error


def _encrypt(secret: bytes, recipient: Pubkey, text: str) -> str:
    if not is_hex32(recipient):
        raise LocalProtocolError("mail: the recipient is not a 64-digit lowercase hex key")
    try:
        public = nostr_sdk.PublicKey.parse(recipient)
        return str(nostr_sdk.nip44_encrypt(nostr_sdk.SecretKey.from_bytes(secret), public, text, nostr_sdk.Nip44Version.V2))
    except nostr_sdk.NostrSdkError as error:
        raise LocalProtocolError(f"mail: cannot be encrypted to {recipient}: {error}") from None


def _decrypt(secret: bytes, author: Pubkey, payload: str, what: str, *, whose: str = "") -> str:
    try:
        public = nostr_sdk.PublicKey.parse(author)
        return str(nostr_sdk.nip44_decrypt(nostr_sdk.SecretKey.from_bytes(secret), public, payload))
    except nostr_sdk.NostrSdkError:
        raise RemoteProtocolError(what, "its NIP-44 payload is not for us or was altered", whose=whose) from None
