"""The largest that an honest participant ever has to say, at the limits of `protocol.limits`, fits into an event that relays take."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec
import pytest

from nostrain.core.bounds import MAX_BATCHES
from nostrain.errors import LocalProtocolError
from nostrain.protocol import messages as m
from nostrain.protocol.limits import (
    MAX_BLOB_BYTES,
    MAX_EVENT_BYTES,
    MAX_LAYERS,
    MAX_LEVELS,
    MAX_ROUNDS,
    MAX_URL,
    MAX_URLS,
    MAX_VALIDATORS,
    MAX_WIDTH,
    MAX_WORKERS,
)
from nostrain.protocol.manifest import BlobRef, ModelSpec, RopeScaling, RunManifest
from nostrain.units import PPM, Digest, EventId, Msat, Ppm, Pubkey, UnixTime
from nostrain.wire.check import MAX_INTEGER, MAX_TIME, MAX_WORDS
from nostrain.wire.event import encode_event
from nostrain.wire.messages import draft, read_message_untrusted
from tests.docs.examples import VALIDATORS, Examples

EXAMPLES = Examples()
HEX = "ab" * 32
AUTHOR = VALIDATORS[0]
ID, DIGEST = EventId(HEX), Digest(HEX)
EVERYONE = tuple(Pubkey(f"{n:064x}") for n in range(MAX_WORKERS))
LATE = UnixTime(MAX_TIME - 1)
LARGEST = MAX_INTEGER - 1
FAR = BlobRef(DIGEST, MAX_BLOB_BYTES, ("http://h.example/".ljust(MAX_URL, "a"),) * MAX_URLS)
INSTANCES = 8
WINDOWED = 16
"""Batches of a verdict that fit whatever their losses are; the default manifest asks for 4."""
NAT = 1_000_000_000
BodyT = TypeVar("BodyT", bound=m.Body)


def example(label: str, kind: type[BodyT]) -> BodyT:
    body = read_message_untrusted((EXAMPLES.events | EXAMPLES.private)[label]).body
    assert isinstance(body, kind)
    return msgspec.structs.replace(body, round=MAX_ROUNDS) if hasattr(body, "round") else body


def size(body: m.Body) -> int:
    """Bytes of the whole signed event; LocalProtocolError if it would not be said at all."""
    return len(encode_event(AUTHOR.signer.sign(draft(body, LATE))))


def announcement() -> m.Announcement:
    body = example("announcement", m.Announcement)
    entry = AUTHOR.entry(EXAMPLES.run)
    entries = (
        msgspec.structs.replace(entry, chain_length=LARGEST, endorsement=AUTHOR.endorsement(EXAMPLES.run, LARGEST)),
    ) * MAX_VALIDATORS
    return msgspec.structs.replace(body, workers=EVERYONE, validators=entries, deadlines=m.Deadlines(*(LATE,) * 6))


def oracles() -> m.OracleAnnouncements:
    body = example("oracle announcements 0", m.OracleAnnouncements)
    return msgspec.structs.replace(body, items=body.items[:1] * 16)


def attestation() -> m.Attestation:
    body = example("attestation 0", m.Attestation)
    return msgspec.structs.replace(body, verdicts=(ID,) * MAX_VALIDATORS, items=body.items[:1] * MAX_WORKERS)


def epoch_attestation() -> m.EpochAttestation:
    one = attestation()
    return m.EpochAttestation(one.run, one.announcement, one.round, LARGEST, DIGEST, one.items)


def verdict() -> m.Verdict:
    losses = (LARGEST,) * WINDOWED
    score = m.Score(EVERYONE[0], None, 65_536, -LARGEST, losses, -LARGEST, -LARGEST, LARGEST, Ppm(1_000_000), Ppm(1_000_000))
    return msgspec.structs.replace(example("verdict 0", m.Verdict), losses_before=losses, scores=(score,) * MAX_WORKERS)


def long_verdict() -> m.Verdict:
    """As many batches as a manifest may ask for, with losses below a thousand nat a token."""
    losses = (999 * NAT,) * MAX_BATCHES
    score = m.Score(EVERYONE[0], None, 65_536, 999 * NAT, losses, 999 * NAT, 999 * NAT, 999 * NAT, Ppm(1_000_000), Ppm(1_000_000))
    return msgspec.structs.replace(verdict(), losses_before=losses, scores=(score,) * MAX_WORKERS)


def errors() -> m.Verdict:
    scores = tuple(m.Score(worker, "x" * MAX_WORDS) for worker in EVERYONE)
    return msgspec.structs.replace(example("verdict 0", m.Verdict), scores=scores)


def result() -> m.Result:
    accepted = tuple(m.Accepted(worker, BlobRef(DIGEST, MAX_BLOB_BYTES), 65_536, MAX_LEVELS) for worker in EVERYONE)
    body = example("result", m.Result)
    return msgspec.structs.replace(body, attestations=(ID,) * MAX_VALIDATORS, accepted=accepted, refused=(), checkpoint=FAR)


def empty_result() -> m.Result:
    refused = tuple(m.Refused(worker, "\U0001f600" * 120) for worker in EVERYONE)
    return msgspec.structs.replace(example("result", m.Result), accepted=(), refused=refused, checkpoint=FAR)


def offer() -> m.Offer:
    body = example("offer", m.Offer)
    each = ((DIGEST,) * INSTANCES,) * MAX_LEVELS
    return msgspec.structs.replace(body, amounts_msat=(Msat(LARGEST),) * MAX_LEVELS, oracles=(DIGEST,) * MAX_VALIDATORS, instances=each)


def openings() -> m.Openings:
    body = example("openings", m.Openings)
    shares = tuple((index, HEX) for index in range(1, MAX_VALIDATORS + 1))
    lock = msgspec.structs.replace(body.locks[0], feldman=body.locks[0].feldman[:1] * MAX_VALIDATORS, shares=shares)
    return msgspec.structs.replace(body, seeds=((DIGEST,) * (INSTANCES - 1),) * MAX_LEVELS, locks=(lock,) * MAX_LEVELS)


def manifest() -> RunManifest:
    """The largest model that a reader takes, every number of it at its limit."""
    side, layers, ppm = MAX_WIDTH, MAX_LAYERS, 1024 * PPM
    rope = RopeScaling(ppm, ppm - 1, ppm, side)
    model = ModelSpec(side, side, layers, side, side, side, side, 1 << 40, False, "llama", side, 1_000_000, True, rope)
    body = example("manifest", RunManifest)
    return msgspec.structs.replace(body, model=model, checkpoint=FAR, dataset=FAR, blob_servers=("https://blobs.example",) * 4)


def enrolment() -> m.Enrolment:
    words = '"' * MAX_WORDS
    return msgspec.structs.replace(example("enrolment validator 0", m.Enrolment), name=words, engine=words)


def reveal() -> m.Reveal:
    return msgspec.structs.replace(example("reveal 0", m.Reveal), blob=msgspec.structs.replace(FAR, urls=('"' * MAX_URL,) * MAX_URLS))


def receipt() -> m.Receipt:
    return msgspec.structs.replace(example("receipt", m.Receipt), commitments=(ID,) * MAX_WORKERS)


def invoices() -> m.Invoices:
    return msgspec.structs.replace(example("invoices", m.Invoices), bolt11=("l" * 1500,) * MAX_LEVELS)


PUBLIC = (
    announcement,
    oracles,
    attestation,
    epoch_attestation,
    verdict,
    long_verdict,
    errors,
    result,
    empty_result,
    manifest,
    enrolment,
    reveal,
    receipt,
)


@pytest.mark.parametrize("largest", PUBLIC, ids=lambda largest: largest.__name__)
def test_the_largest_that_has_to_be_said_fits(largest: Callable[[], m.Body]) -> None:
    body = largest()
    assert size(body) <= MAX_EVENT_BYTES
    assert read_message_untrusted(AUTHOR.signer.sign(draft(body, LATE))).body == body


@pytest.mark.parametrize("largest", [offer, openings, invoices], ids=lambda largest: largest.__name__)
def test_what_goes_into_a_gift_wrap_is_smaller(largest: Callable[[], m.Body]) -> None:
    assert size(largest()) <= 9_000


def test_draft_refuses_only_what_would_be_too_large() -> None:
    body = receipt()
    most = max(count for count in range(400) if fits(msgspec.structs.replace(body, commitments=(ID,) * count)))
    assert MAX_EVENT_BYTES - 200 < size(msgspec.structs.replace(body, commitments=(ID,) * most)) <= MAX_EVENT_BYTES


def fits(body: m.Body) -> bool:
    try:
        return draft(body, LATE).created_at == LATE
    except LocalProtocolError:
        return False
