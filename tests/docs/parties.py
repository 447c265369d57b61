"""Who takes part in the examples: participants with fixed keys, and what each of them signs."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Final

import msgspec

from nostrain.crypto import chain, schnorr
from nostrain.crypto.oracle import endorsement_message, nonce_scalar, outcome_message
from nostrain.crypto.points import base_multiply, encode_point
from nostrain.hashes import sha256_hex, tagged_hash
from nostrain.keys.signer import NostrSigner
from nostrain.keys.store import RootSecret
from nostrain.protocol import messages as m
from nostrain.protocol.digests import endorsed_text
from nostrain.protocol.event import Event
from nostrain.protocol.manifest import BlobRef
from nostrain.units import Digest, EventId, Pubkey, UnixTime
from nostrain.wire import dlc
from nostrain.wire.bolt12_offer import encode_offer
from nostrain.wire.messages import attestation_item_untrusted, draft, oracle_item_untrusted, payout_untrusted

START: Final = UnixTime(1_767_225_600)
BLOBS: Final = "https://blobs.example"
ROUNDS: Final = 8


class Party:
    """A participant with a fixed root secret."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.root = RootSecret(tagged_hash("nostrain/example", name.encode()))
        self.signer = NostrSigner(self.root)
        self.pubkey: Pubkey = self.signer.pubkey
        self.oracle = Pubkey(schnorr.public_key(self.root.oracle_key()).hex())

    def says(self, body: m.Body, created_at: int) -> Event:
        """The signed event that says `body`."""
        return self.signer.sign(draft(body, UnixTime(created_at)))

    def salt(self, label: str) -> Digest:
        """32 bytes that stand for entropy."""
        return Digest(sha256_hex(f"salt {self.name} {label}".encode()))

    def endorsement(self, run: EventId, length: int = ROUNDS) -> str:
        """The oracle key's signature that names this party's Nostr key and its hash chain."""
        text = endorsed_text(run, self.chain_link(run, 0), length)
        return schnorr.sign(self.root.oracle_key(), endorsement_message(self.pubkey, text)).hex()

    def entry(self, run: EventId) -> m.ValidatorEntry:
        """This party as an announcement lists it."""
        return m.ValidatorEntry(self.pubkey, self.oracle, self.endorsement(run), self.chain_link(run, 0), ROUNDS)

    def payout(self) -> m.Payout:
        """The offer of a Lightning node of this party's."""
        return payout_untrusted(encode_offer("regtest", f"shares of {self.name}", "02" + self.oracle))

    def chain_link(self, run: EventId, index: int) -> Digest:
        """Link `index` of the hash chain; 0 is its published end."""
        return Digest(chain.chain_link(self.root.chain_seed(run, ROUNDS), ROUNDS, index).hex())

    def _nonces(self, event: dlc.OracleEvent, digits: int) -> list[int]:
        template = dlc.encode_event(msgspec.structs.replace(event, nonces=()))
        return [nonce_scalar(self.root.nonce_secret(bytes(32)), template, digit) for digit in range(digits)]

    def announces(self, event_id: str, digits: int, maturity: UnixTime, payee: Pubkey) -> m.OracleItem:
        """The oracle announcement of one thermometer."""
        event = dlc.OracleEvent((), maturity, dlc.DigitDescriptor(digits), event_id)
        points = tuple(encode_point(base_multiply(k))[1:].hex() for k in self._nonces(event, digits))
        event = msgspec.structs.replace(event, nonces=points)
        signature = schnorr.sign(self.root.oracle_key(), dlc.announcement_message(event)).hex()
        return oracle_item_untrusted(payee, b64(dlc.encode_announcement(dlc.Announcement(signature, self.oracle, event))))

    def attests(self, item: m.OracleItem, digits: Sequence[int]) -> m.AttestationItem:
        """The attestation of `digits` for our own announcement `item`."""
        event = dlc.parse_announcement_untrusted(base64.b64decode(item.tlv)).event
        outcomes = tuple(map(str, digits))
        signed = zip(self._nonces(event, len(digits)), outcomes, strict=True)
        signatures = tuple(schnorr.sign_with_nonce(self.root.oracle_key(), k, outcome_message(o)).hex() for k, o in signed)
        return attestation_item_untrusted(
            item.payee, b64(dlc.encode_attestation(dlc.Attestation(event.event_id, self.oracle, signatures, outcomes)))
        )


def b64(data: bytes) -> str:
    """Standard base64, as TLVs travel."""
    return base64.b64encode(data).decode()


def blob(label: str, size: int) -> BlobRef:
    """A reference to bytes that stand for a blob; its URLs are those of the run's server."""
    digest = Digest(sha256_hex(label.encode()))
    return BlobRef(digest, size, (f"{BLOBS}/{digest}",))


COORDINATOR: Final = Party("coordinator")
WORKERS: Final = tuple(sorted((Party(f"worker {n}") for n in (1, 2, 3)), key=lambda party: party.pubkey))
VALIDATORS: Final = tuple(sorted((Party(f"validator {n}") for n in (1, 2, 3)), key=lambda party: party.pubkey))
