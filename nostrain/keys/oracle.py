"""The port `Oracle`: announces thermometers, attests each digit once, endorses the Nostr key, reveals its hash chain (design section 6)."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from nostrain.crypto import chain, schnorr
from nostrain.crypto.oracle import endorsement_message, is_thermometer, nonce_scalar, outcome_message
from nostrain.crypto.points import base_multiply, encode_point
from nostrain.errors import LocalProtocolError
from nostrain.keys.journal import OracleJournal
from nostrain.keys.store import RootSecret
from nostrain.units import Digest, Pubkey, UnixTime
from nostrain.wire import dlc


class DlcOracle:
    """Implements `ports.signer.Oracle`; any thread may call it. Its journal lies in `folder`: see `keys.journal` for restored backups."""

    def __init__(self, root: RootSecret, folder: Path, draw: Callable[[int], bytes] = secrets.token_bytes) -> None:
        """Raises ConfigError when the journal cannot be used."""
        self._root = root
        self._pubkey = Pubkey(schnorr.public_key(root.oracle_key()).hex())
        self._journal = OracleJournal(folder, draw)
        self._mutex = threading.Lock()

    @property
    def pubkey(self) -> Pubkey:
        """The oracle's x-only key P_j."""
        return self._pubkey

    def close(self) -> None:
        """Close the journal."""
        self._journal.close()

    def endorse(self, nostr_pubkey: Pubkey, run: str) -> str:
        """Signature (128 hex) that names our Nostr key for `run`; `crypto.oracle.verify_endorsement` checks it."""
        return schnorr.sign(self._root.oracle_key(), endorsement_message(nostr_pubkey, run)).hex()

    def announce(self, event_id: str, digits: int, maturity: UnixTime) -> bytes:
        """The oracle_announcement TLV of `digits` unsigned binary digits; journalled before it is returned, and the same for ever after.

        An event announced before a restore from backup keeps its old announcement, which `attest` will refuse.
        Raises LocalProtocolError when `event_id` was announced with other digits or another maturity, or breaks a bound of `wire.dlc`;
        Unavailable when the journal cannot be written.
        """
        template = dlc.OracleEvent((), maturity, dlc.DigitDescriptor(digits), event_id)
        if not (1 <= digits <= dlc.MAX_NONCES and 0 <= maturity < 1 << 32 and len(event_id.encode()) <= dlc.MAX_TEXT_BYTES):
            raise LocalProtocolError(f"oracle: cannot announce {event_id} with {digits} digits maturing at {maturity}")
        with self._mutex:
            if (known := self._journal.announced(event_id, digits, maturity)) is not None:
                return known
            nonces = tuple(map(_nonce_point, self._nonces(template, digits)))
            event = dlc.OracleEvent(nonces, maturity, template.descriptor, event_id)
            signature = schnorr.sign(self._root.oracle_key(), dlc.announcement_message(event)).hex()
            tlv = dlc.encode_announcement(dlc.Announcement(signature, self._pubkey, event))
            self._journal.record_announcement(event_id, digits, maturity, tlv)
            return tlv

    def attest(self, announcement: bytes, outcome: Sequence[int]) -> bytes:
        """The oracle_attestation TLV for our own `announcement`; every (nonce, digit) is journalled before a signature exists.

        Raises LocalProtocolError: the outcome is not one thermometer digit per nonce, another one was signed before, the announcement is
        not ours, or is from before a restore from backup. Raises Unavailable when the journal cannot be written: nothing was signed.
        """
        with self._mutex:
            self._journal.require_current(announcement)
            promised = dlc.parse_announcement_untrusted(announcement)
            event = promised.event
            if len(outcome) != len(event.nonces) or not is_thermometer(outcome):
                raise LocalProtocolError(f"oracle: {list(outcome)} is not a thermometer of {len(event.nonces)} digits")
            scalars = self._nonces(msgspec.structs.replace(event, nonces=()), len(event.nonces))
            if promised.pubkey != self._pubkey or tuple(map(_nonce_point, scalars)) != event.nonces:
                raise LocalProtocolError("oracle: the announcement was made with another root secret")
            digits = tuple(str(int(digit)) for digit in outcome)
            self._journal.record_outcomes([bytes.fromhex(nonce) for nonce in event.nonces], digits)
            key = self._root.oracle_key()
            signed = (schnorr.sign_with_nonce(key, k, outcome_message(digit)) for k, digit in zip(scalars, digits, strict=True))
            signatures = tuple(signature.hex() for signature in signed)
            return dlc.encode_attestation(dlc.Attestation(event.event_id, self._pubkey, signatures, digits))

    def chain_end(self, run: str, length: int) -> Digest:
        """End of the hash chain for `run`: SHA-256 applied `length` times to its seed."""
        return Digest(chain.advance(self._root.chain_seed(run, length), length).hex())

    def chain_link(self, run: str, length: int, index: int) -> Digest:
        """b with H^index(b) = chain_end. Raises LocalProtocolError outside 1..length."""
        if not 1 <= index <= length:
            raise LocalProtocolError(f"oracle: link {index} of a hash chain of {length}")
        return Digest(chain.chain_link(self._root.chain_seed(run, length), length, index).hex())

    def _nonces(self, template: dlc.OracleEvent, digits: int) -> list[int]:
        """The secret nonces of an event, from its TLV without nonces."""
        secret, event_tlv = self._root.nonce_secret(self._journal.generation), dlc.encode_event(template)
        return [nonce_scalar(secret, event_tlv, digit) for digit in range(digits)]


def _nonce_point(scalar: int) -> str:
    return encode_point(base_multiply(scalar))[1:].hex()
