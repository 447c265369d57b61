"""Message bodies ⇄ event kind, tags and content (docs/protocol.md). Content is JSON and complete; tags only repeat what relays index.

A body that is read must agree with its event's kind and tags; unknown fields are ignored (the signed event keeps them), unknown versions
refused. Oracle TLVs are parsed and their signatures verified here, so that what reaches the machines is only left to be compared.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from typing import Any, Final

import msgspec

from nostrain.crypto.oracle import verify_endorsement
from nostrain.errors import LocalProtocolError, RemoteProtocolError
from nostrain.protocol import messages as m
from nostrain.protocol.digests import endorsed_text
from nostrain.protocol.event import Draft, Event, Tags
from nostrain.protocol.limits import MAX_EVENT_BYTES, MAX_EVIDENCE, MAX_LEVELS, MAX_OFFER, MAX_ORACLE_ITEMS, MAX_WORKERS
from nostrain.protocol.manifest import RunManifest
from nostrain.units import Digest, EventId, Pubkey, UnixTime
from nostrain.wire import dlc, kinds
from nostrain.wire.bodies import WireAttestation, WireEnrolment, WireEpochAttestation, WireOracleAnnouncements
from nostrain.wire.bolt12_offer import parse_offer_untrusted
from nostrain.wire.check import check_values
from nostrain.wire.curation import MAX_CURATIONS, check_curation_untrusted
from nostrain.wire.event import refuse_repeated, short_reason
from nostrain.wire.node_address import check_node_untrusted

KIND_OF: Final[dict[type, int]] = {
    RunManifest: kinds.MANIFEST,
    m.Enrolment: kinds.ENROLMENT,
    m.Announcement: kinds.ANNOUNCEMENT,
    m.OracleAnnouncements: kinds.ORACLE_ANNOUNCEMENTS,
    m.Commitment: kinds.COMMITMENT,
    m.Receipt: kinds.RECEIPT,
    m.Acknowledgement: kinds.ACKNOWLEDGEMENT,
    m.Reveal: kinds.REVEAL,
    m.VerdictHash: kinds.VERDICT,
    m.Verdict: kinds.VERDICT,
    m.Attestation: kinds.ATTESTATION,
    m.EpochAttestation: kinds.ATTESTATION,
    m.Result: kinds.RESULT,
    m.Confirmation: kinds.CONFIRMATION,
    m.Dispute: kinds.DISPUTE,
    m.Offer: kinds.OFFER,
    m.Choice: kinds.OPENING,
    m.Openings: kinds.OPENING,
    m.Invoices: kinds.INVOICES,
}
CONTENT_OF: Final[dict[int, Any]] = {
    kinds.MANIFEST: RunManifest,
    kinds.ENROLMENT: WireEnrolment,
    kinds.ANNOUNCEMENT: m.Announcement,
    kinds.ORACLE_ANNOUNCEMENTS: WireOracleAnnouncements,
    kinds.COMMITMENT: m.Commitment,
    kinds.RECEIPT: m.Receipt,
    kinds.ACKNOWLEDGEMENT: m.Acknowledgement,
    kinds.REVEAL: m.Reveal,
    kinds.VERDICT: m.VerdictHash | m.Verdict,
    kinds.ATTESTATION: WireAttestation | WireEpochAttestation,
    kinds.RESULT: m.Result,
    kinds.CONFIRMATION: m.Confirmation,
    kinds.DISPUTE: m.Dispute,
    kinds.OFFER: m.Offer,
    kinds.OPENING: m.Choice | m.Openings,
    kinds.INVOICES: m.Invoices,
}
VERSION: Final = 1
EVENT_FRAME_BYTES: Final = 400
"""Of an event's JSON, what is neither tags nor content: id, key, signature, names."""


class _Version(msgspec.Struct):
    v: int


def draft(body: m.Body, created_at: UnixTime) -> Draft:
    """The event that says `body`. Raises LocalProtocolError if it would not fit into MAX_EVENT_BYTES."""
    content: Any = body
    if isinstance(body, m.OracleAnnouncements | m.Attestation | m.EpochAttestation):
        content = {**msgspec.to_builtins(body), "items": [{"payee": item.payee, "tlv": item.tlv} for item in body.items]}
    if isinstance(body, m.Enrolment):
        content = {**msgspec.to_builtins(body), "offer": body.offer and body.offer.bolt12}
        if body.node is None:
            del content["node"]
        if not body.tokens_per_s:
            del content["tokens_per_s"]
    tags, text = tags_of(body), msgspec.json.encode(content).decode()
    size = len(msgspec.json.encode((tags, text))) + EVENT_FRAME_BYTES
    if size > MAX_EVENT_BYTES:
        raise LocalProtocolError(f"a {type(body).__name__} of {size} bytes is too large for an event")
    return Draft(created_at=created_at, kind=KIND_OF[type(body)], tags=tags, content=text)


def round_key(run: EventId, number: int) -> str:
    """How relays index everything that is said in a round."""
    return f"{run}:{number:05d}"


def tags_of(body: m.Body) -> Tags:
    """What relays index: t, d (run), r (run and round), e (what it answers), x (blob), p (whom it is about)."""
    tags: list[tuple[str, ...]] = [("t", "nostrain")]
    if isinstance(body, RunManifest):
        return (*tags, ("d", body.name))
    tags.append(("d", body.run))
    if isinstance(body, m.Enrolment):
        return (*tags, ("e", body.run))
    if isinstance(body, m.Dispute):
        return (*tags, ("p", body.accused))
    tags.append(("r", round_key(body.run, body.round)))
    answers = [
        getattr(body, name) for name in ("parent", "announcement", "receipt", "commitment", "result", "offer") if hasattr(body, name)
    ]
    if isinstance(body, m.Commitment):
        answers = [body.announcement]
    tags += [("e", event_id) for event_id in answers]
    if isinstance(body, m.Reveal):
        tags.append(("x", body.blob.sha256))
    if isinstance(body, m.Offer):
        tags.append(("p", body.payee))
    return tuple(tags)


def read_message_untrusted(event: Event) -> m.Message:
    """What a verified event says. Raises RemoteProtocolError naming its kind and author."""
    what, whose = f"{kinds.KINDS.get(event.kind, f'kind {event.kind}')} {event.id[:8]}", event.pubkey[:8]
    content_type = CONTENT_OF.get(event.kind)
    if content_type is None:
        raise RemoteProtocolError(what, "is not a kind that we read", whose=whose)
    if len(event.content) > MAX_EVENT_BYTES:
        raise RemoteProtocolError(what, f"has {len(event.content)} characters of content", whose=whose)
    try:
        if msgspec.json.decode(event.content, type=_Version).v != VERSION:
            raise RemoteProtocolError(what, "is of an unknown version", whose=whose)
        json.loads(event.content, object_pairs_hook=refuse_repeated)
        content = msgspec.json.decode(event.content, type=content_type)
        check_values(content)
        body = understood(content, event)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise RemoteProtocolError(what, f"content: {short_reason(error)}", whose=whose) from None
    except RemoteProtocolError as error:
        raise RemoteProtocolError(what, error.reason, whose=whose) from None
    missing = [tag for tag in tags_of(body) if tag not in event.tags]
    if missing:
        raise RemoteProtocolError(what, f"its tags lack {missing[0]}", whose=whose)
    return m.Message(event.id, event.pubkey, event.created_at, body, event)


def understood(content: Any, event: Event) -> m.Body:
    """The body, with bounds checked and oracle TLVs parsed. Raises RemoteProtocolError."""
    match content:
        case WireOracleAnnouncements():
            limit(len(content.items), MAX_ORACLE_ITEMS, "oracle announcements")
            items = tuple(oracle_item_untrusted(item.payee, item.tlv) for item in content.items)
            return m.OracleAnnouncements(content.run, content.announcement, content.round, items)
        case WireAttestation():
            limit(len(content.items), MAX_WORKERS, "attestations")
            attested = tuple(attestation_item_untrusted(item.payee, item.tlv) for item in content.items)
            return m.Attestation(content.run, content.announcement, content.round, content.receipt, content.verdicts, attested)
        case WireEnrolment():
            return enrolment_untrusted(content, event.pubkey)
        case WireEpochAttestation():
            limit(len(content.items), MAX_WORKERS, "attestations")
            paid = tuple(attestation_item_untrusted(item.payee, item.tlv) for item in content.items)
            return m.EpochAttestation(content.run, content.announcement, content.round, content.through, content.verdicts, paid)
        case m.Announcement():
            for entry in content.validators:
                check_endorsement(content.run, entry)
            return content
        case RunManifest():
            limit(len(content.scoring.levels_ppm), MAX_LEVELS, "levels")
            limit(len(content.curations), MAX_CURATIONS, "curations")
            for curation in content.curations:
                check_curation_untrusted(curation, content.dataset.sha256)
            return content
        case m.Dispute(evidence=evidence):
            limit(len(evidence), MAX_EVIDENCE, "pieces of evidence")
            if not evidence or list(evidence) != sorted(set(evidence)):
                raise RemoteProtocolError("dispute", "its evidence is empty, not sorted, or repeats an event")
            return content
        case _:
            body: m.Body = content
            return body


def enrolment_untrusted(content: WireEnrolment, author: Pubkey) -> m.Enrolment:
    """The enrolment, with the oracle's endorsement checked and the offer parsed. Raises RemoteProtocolError."""
    if content.oracle is not None:
        if content.chain_end is None or content.endorsement is None:
            raise RemoteProtocolError("enrolment", "an oracle key without endorsement or hash chain")
        entry = m.ValidatorEntry(author, content.oracle, content.endorsement, content.chain_end, content.chain_length)
        check_endorsement(content.run, entry)
    if content.node is not None:
        check_node_untrusted(content.node)
    offer = None if content.offer is None else payout_untrusted(content.offer)
    return m.Enrolment(**{**msgspec.structs.asdict(content), "offer": offer})


def payout_untrusted(text: str) -> m.Payout:
    """Parse an offer that shares are to be paid to: of any amount, and not longer than an enrolment has room for. Raises RemoteProtocolError."""
    if len(text) > MAX_OFFER:
        raise RemoteProtocolError("offer", f"{len(text)} characters, more than {MAX_OFFER}")
    offer = parse_offer_untrusted(text)
    if not offer.open:
        raise RemoteProtocolError("offer", "asks for an amount or quantity of its own")
    return m.Payout(text, offer.networks)


def check_endorsement(run: EventId, entry: m.ValidatorEntry) -> None:
    """Raises RemoteProtocolError when the oracle key does not endorse the validator's key and hash chain for this run."""
    if not verify_endorsement(entry.oracle, entry.pubkey, endorsed_text(run, entry.chain_end, entry.chain_length), entry.endorsement):
        raise RemoteProtocolError("validator", f"the oracle key does not endorse {entry.pubkey[:8]} and its hash chain")


def limit(count: int, most: int, what: str) -> None:
    """Raises RemoteProtocolError when there are too many of something."""
    if count > most:
        raise RemoteProtocolError("content", f"{count} {what}, {most} is the limit")


def unbase64(text: str) -> bytes:
    """Strict standard base64. Raises RemoteProtocolError."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise RemoteProtocolError("TLV", "is not base64") from None


def oracle_item_untrusted(payee: Pubkey, tlv: str) -> m.OracleItem:
    """Parse an oracle_announcement TLV (base64) that money or acceptance may hang on: tagged convention, unsigned binary digits."""
    data = unbase64(tlv)
    parsed = dlc.parse_announcement_untrusted(data)
    if not parsed.is_thermometer:
        raise RemoteProtocolError("oracle announcement", "is not of unsigned binary digits under the tagged convention")
    return m.OracleItem(
        payee=payee,
        tlv=tlv,
        event_id=parsed.event.event_id,
        oracle=parsed.pubkey,
        nonces=parsed.event.nonces,
        maturity=parsed.event.maturity,
        digest=Digest(hashlib.sha256(data).hexdigest()),
    )


def attestation_item_untrusted(payee: Pubkey, tlv: str) -> m.AttestationItem:
    """Parse an oracle_attestation TLV (base64) whose signatures are valid under the tagged convention."""
    parsed = dlc.parse_attestation_untrusted(unbase64(tlv))
    if parsed.convention is not dlc.Convention.TAGGED or parsed.event_id is None or not set(parsed.outcomes) <= {"0", "1"}:
        raise RemoteProtocolError("oracle attestation", "is not of binary digits under the tagged convention")
    return m.AttestationItem(
        payee=payee,
        tlv=tlv,
        event_id=parsed.event_id,
        oracle=parsed.pubkey,
        nonces=parsed.nonces,
        digits=tuple(int(outcome) for outcome in parsed.outcomes),
        scalars=parsed.scalars,
    )
