"""What an oracle must never sign: one nonce for two events, one event in two ways, two outcomes with one nonce, digits that are no
thermometer (design section 6).

The accused is always an oracle key, whose signatures the TLVs carry themselves. The events that brought them, and the names of payees
beside them, are by whoever published them and prove nothing.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Final

from nostrain.audit.evidence import Evidence, Finding, Said, events_of
from nostrain.crypto.oracle import is_thermometer
from nostrain.errors import RemoteProtocolError
from nostrain.protocol.messages import AttestationItem, OracleItem
from nostrain.units import Pubkey
from nostrain.wire import dlc

OURS: Final = "nostrain/1/"
"""How the ids of our events begin. In events of other names an oracle may attest any digits, of a price in binary for example."""


def announcement_of(item: OracleItem) -> dlc.Announcement:
    """The announcement, parsed and verified again. Raises RemoteProtocolError."""
    return dlc.parse_announcement_untrusted(base64.b64decode(item.tlv))


def attestation_of(item: AttestationItem) -> dlc.Attestation:
    """The attestation, parsed and verified again. Raises RemoteProtocolError."""
    return dlc.parse_attestation_untrusted(base64.b64decode(item.tlv))


def reused_nonces(evidence: Evidence) -> Iterator[Finding]:
    """An oracle announced one nonce for two different events: attesting both would give its key away, or leaves one of them unattested.

    Signing the same event twice is no offence.
    """
    first: dict[tuple[Pubkey, str], tuple[Said, dlc.OracleEvent]] = {}
    told: set[Pubkey] = set()
    for said, item in evidence.announced():
        event = announcement_of(item).event
        for nonce in item.nonces:
            before, other = first.setdefault((item.oracle, nonce), (said, event))
            if other != event and item.oracle not in told:
                told.add(item.oracle)
                text = f"oracle {item.oracle} announced nonce {nonce} for {other.event_id[:120]!a} and {event.event_id[:120]!a}"
                yield Finding(item.oracle, text, events_of(before, said))


def two_announcements(evidence: Evidence) -> Iterator[Finding]:
    """An oracle announced one event of ours in two ways, and can attest in one and leave the locks on the other shut.

    Two signatures of the same words are no offence.
    """
    first: dict[tuple[Pubkey, str], tuple[Said, dlc.OracleEvent]] = {}
    told: set[tuple[Pubkey, str]] = set()
    for said, item in evidence.announced():
        event, question = announcement_of(item).event, (item.oracle, item.event_id)
        before, other = first.setdefault(question, (said, event))
        if other != event and question not in told and item.event_id.startswith(OURS):
            told.add(question)
            yield Finding(item.oracle, f"oracle {item.oracle} announced {item.event_id[:160]!a} in two ways", events_of(before, said))


def two_outcomes(evidence: Evidence) -> Iterator[Finding]:
    """An oracle signed both outcomes with one nonce. Anyone can compute its secret key from the two signatures."""
    first: dict[tuple[Pubkey, str], tuple[Said, int]] = {}
    told: set[Pubkey] = set()
    for said, item in evidence.attested():
        for nonce, digit in zip(item.nonces, item.digits, strict=True):
            before, other = first.setdefault((item.oracle, nonce), (said, digit))
            if other != digit and item.oracle not in told:
                told.add(item.oracle)
                yield Finding(item.oracle, f"oracle {item.oracle} attested both 0 and 1 with nonce {nonce}", events_of(before, said))


def non_prefix_digits(evidence: Evidence) -> Iterator[Finding]:
    """An oracle attested a digit above one that it denied.

    Only the announcement fixes which nonce is which digit: an attestation has no signature over the order of its parts, and anyone could
    shuffle an honest one.
    """
    announced: dict[tuple[Pubkey, str, tuple[str, ...]], tuple[Said, OracleItem]] = {}
    for said, promise in evidence.announced():
        announced.setdefault((promise.oracle, promise.event_id, promise.nonces), (said, promise))
    for said, item in evidence.attested():
        found = announced.get((item.oracle, item.event_id, item.nonces))
        if found is None or is_thermometer(item.digits) or not item.event_id.startswith(OURS):
            continue
        if fulfils(found[1], item) is not None:
            text = f"oracle {item.oracle} attested {item.digits}, which is no thermometer, for {item.event_id[:160]!a}"
            yield Finding(item.oracle, text, events_of(found[0], said))


def fulfils(promise: OracleItem, item: AttestationItem) -> tuple[int, ...] | None:
    """The digits if the attestation fulfils the announcement, else None."""
    try:
        return dlc.verify_attestation(announcement_of(promise), attestation_of(item))
    except RemoteProtocolError:
        return None
