"""The event kinds that we speak (design section 8). `relay-configs/` and `docs/protocol.md` are checked against this table."""

from __future__ import annotations

from typing import Final

MANIFEST: Final = 8650
ANNOUNCEMENT: Final = 8651
COMMITMENT: Final = 8652
RECEIPT: Final = 8653
REVEAL: Final = 8654
VERDICT: Final = 8655
RESULT: Final = 8656
ENROLMENT: Final = 8657
DISPUTE: Final = 8658
ACKNOWLEDGEMENT: Final = 8659
CONFIRMATION: Final = 8667
CURATION: Final = 8668
ORACLE_ANNOUNCEMENTS: Final = 8670
ATTESTATION: Final = 8671
OFFER: Final = 8680
OPENING: Final = 8681
INVOICES: Final = 8682
GIFT_WRAP: Final = 1059
PRESENCE: Final = 28650
POINTER: Final = 38650
RELAY_LIST: Final = 10002
INBOX_RELAYS: Final = 10050
BLOB_SERVERS: Final = 10063
HANDLER: Final = 31990

KINDS: Final[dict[int, str]] = {
    MANIFEST: "run manifest",
    ANNOUNCEMENT: "announcement",
    COMMITMENT: "commitment",
    RECEIPT: "receipt",
    REVEAL: "reveal",
    VERDICT: "verdict",
    RESULT: "result",
    ENROLMENT: "enrolment",
    DISPUTE: "dispute",
    ACKNOWLEDGEMENT: "acknowledgement",
    8660: "bounty",
    8661: "bounty commitment",
    8662: "bounty reveal",
    8663: "bounty verdict",
    8664: "bounty result",
    8665: "ordered receipt",
    CONFIRMATION: "confirmation",
    CURATION: "curation",
    ORACLE_ANNOUNCEMENTS: "oracle announcements",
    ATTESTATION: "attestation",
    OFFER: "offer",
    OPENING: "choice and openings",
    INVOICES: "invoices",
    RELAY_LIST: "relay list",
    INBOX_RELAYS: "inbox relays",
    BLOB_SERVERS: "blob servers",
    PRESENCE: "presence",
    HANDLER: "handler information",
    POINTER: "run pointer",
    38660: "bounty pointer",
    GIFT_WRAP: "gift wrap",
}
"""Every kind that a relay for nostrain must take, spoken by this version or reserved by the design."""

PUBLIC: Final = (
    MANIFEST,
    ANNOUNCEMENT,
    COMMITMENT,
    RECEIPT,
    REVEAL,
    VERDICT,
    RESULT,
    ENROLMENT,
    ACKNOWLEDGEMENT,
    CONFIRMATION,
    ORACLE_ANNOUNCEMENTS,
    ATTESTATION,
    DISPUTE,
)
"""Kinds that this version reads from relays."""

ADVERTS: Final = (POINTER, PRESENCE, RELAY_LIST, INBOX_RELAYS, BLOB_SERVERS, HANDLER)
"""Kinds by which runs and participants are found. Nothing hangs on them, and no machine reads them."""
