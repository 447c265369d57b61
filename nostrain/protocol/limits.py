"""Bounds that every reader enforces before it believes anything (design section 8)."""

from __future__ import annotations

from typing import Final

MAX_EVENT_BYTES: Final = 16 * 1024
MAX_WORKERS: Final = 20
MAX_VALIDATORS: Final = 8
MAX_LEVELS: Final = 4
"""The three together keep every event of a round below MAX_EVENT_BYTES: one attestation event covers all workers (tests/wire/test_sizes.py)."""
MAX_ENROLLED: Final = 1024
MAX_EPOCH_ROUNDS: Final = 8
"""What an epoch's pay follows from must still be known to everyone when it ends: so many rounds are kept (`core.pruning`)."""
MAX_URLS: Final = 4
MAX_URL: Final = 256
MAX_RELAYS: Final = 8
"""Relays that a run, a list or an address may name; readers dial no more than that."""
MAX_OFFER: Final = 1024
"""Characters of a BOLT 12 offer in an enrolment: about six hops of blinded paths."""
MAX_ORACLE_ITEMS: Final = 25
MAX_EVIDENCE: Final = 128
"""Events that one dispute may rest on."""
MAX_ROUNDS: Final = 100_000
MAX_BLOB_BYTES: Final = 1 << 40
MAX_PARAMETERS: Final = 1 << 38
MAX_TOKENS_PER_S: Final = 10**12
MAX_LAYERS: Final = 256
MAX_WIDTH: Final = 1 << 20
"""Of every side of every tensor: hidden sizes, heads, vocabularies."""
