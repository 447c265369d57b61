"""False offers: a payer whose locks do not open, shown by its own signed offer and openings and by public attestations (design section 6).

Everything that decides is either signed by the payer or follows from attestations in one way only, so that nobody can frame an honest one.
Which network the locks were made for is the one thing that no event says: it is what makes the payer's *opened* instances come out as it
committed to them, and without a single one that does, nothing is proved. The index that the payee chose is that of the lock that the
payer opened, whatever the payee says.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from nostrain.audit.evidence import Evidence, Finding, Said, events_of
from nostrain.audit.oracles import fulfils
from nostrain.crypto.instances import instance_digest
from nostrain.crypto.lock import LockContext, LockOracle, check_lock_untrusted, combine, expand, open_share
from nostrain.crypto.oracle import is_thermometer
from nostrain.crypto.points import InvalidPoint
from nostrain.errors import LocalProtocolError, RemoteProtocolError
from nostrain.protocol.manifest import RunManifest
from nostrain.protocol.messages import Announcement, AttestationItem, LevelLock, Offer, Openings, OracleItem
from nostrain.units import Digest, Pubkey

NETWORKS: Final = ("bitcoin", "testnet", "testnet4", "signet", "regtest", "simnet")


@dataclass(frozen=True)
class _Escrow:
    """One offer with everything that its locks are bound to. `behind` are the events that say so."""

    offer: Said
    body: Offer
    openings: Openings
    threshold: int
    oracles: tuple[tuple[int, OracleItem], ...]
    behind: tuple[Said, ...]

    def context(self, network: str, level: int) -> LockContext:
        """The context of one level (1-based). Raises LocalProtocolError when there cannot be such a lock."""
        return LockContext(
            network=network,
            run=self.body.run,
            announcement_id=self.body.announcement,
            payer=self.offer.message.author,
            payee=self.body.payee,
            level=level,
            oracles=tuple(LockOracle(index, item.oracle, item.digest, item.nonces) for index, item in self.oracles),
            amount_msat=self.body.amounts_msat[level - 1],
        )


_Attested = Mapping[tuple[Pubkey, str], Sequence[tuple[Said, AttestationItem]]]
"""Attestations by oracle and event id."""


def false_offers(evidence: Evidence) -> Iterator[Finding]:
    """One finding for each opened offer in which the payer cheated: the first fault that the events show."""
    attested: defaultdict[tuple[Pubkey, str], list[tuple[Said, AttestationItem]]] = defaultdict(list)
    for said, item in evidence.attested():
        attested[item.oracle, item.event_id].append((said, item))
    for escrow in _escrows(evidence):
        try:
            found = _fault(escrow, attested)
        except LocalProtocolError:
            continue  # terms of which no lock can be made: every payee refuses them, and no work hangs on them
        if found is not None:
            text, witnesses = found
            payer = escrow.offer.message.author
            yield Finding(payer, f"{payer} made a false offer to {escrow.body.payee}: {text}", events_of(*escrow.behind, *witnesses))


def _escrows(evidence: Evidence) -> Iterator[_Escrow]:
    """Every offer that was opened, of which the evidence is complete."""
    items = {item.digest: (said, item) for said, item in evidence.announced()}
    for opened, openings in evidence.of(Openings):
        offer, payer = evidence.said.get(openings.offer), opened.message.author
        if offer is None or not isinstance(body := offer.message.body, Offer) or offer.message.author != payer:
            continue
        manifest, announcement = evidence.said.get(body.run), evidence.said.get(body.announcement)
        if manifest is None or announcement is None or {manifest.message.author, announcement.message.author} != {payer}:
            continue
        terms, opens = manifest.message.body, announcement.message.body
        if not isinstance(terms, RunManifest) or not isinstance(opens, Announcement) or opens.run != body.run:
            continue
        if any(digest not in items for digest in body.oracles) or len(body.amounts_msat) != len(body.instances):
            continue
        oracles = _indexed(opens, [items[digest][1] for digest in body.oracles])
        if oracles is not None:
            behind = (manifest, announcement, *(items[digest][0] for digest in body.oracles), offer, opened)
            yield _Escrow(offer, body, openings, terms.threshold, oracles, behind)


def _indexed(announcement: Announcement, items: Sequence[OracleItem]) -> tuple[tuple[int, OracleItem], ...] | None:
    """Each oracle announcement with its oracle's 1-based position in the round's list, in that order; None when one has no single place."""
    indices = {entry.oracle: index for index, entry in enumerate(announcement.validators, start=1)}
    pairs = [(indices[item.oracle], item) for item in items if item.oracle in indices]
    if len(indices) != len(announcement.validators) or len({index for index, _ in pairs}) != len(items):
        return None
    return tuple(sorted(pairs, key=lambda pair: pair[0]))


def _fault(escrow: _Escrow, attested: _Attested) -> tuple[str, tuple[Said, ...]] | None:
    """What the payer did, and the attestations that show it; None when nothing is proved."""
    levels = len(escrow.body.instances)
    if len(escrow.openings.locks) != levels or len(escrow.openings.seeds) != levels:
        return f"it opened {len(escrow.openings.locks)} locks for {levels} levels", ()
    chosen: dict[int, int] = {}
    for level in range(1, levels + 1):
        index = _index_of(escrow, level)
        if index is None:
            return f"the lock of level {level} is none of those that it committed to", ()
        chosen[level] = index
        try:
            check_lock_untrusted(escrow.openings.locks[level - 1], escrow.context(NETWORKS[0], level), escrow.threshold)
        except RemoteProtocolError as error:
            return f"level {level}: {error.reason}", ()
    if len({lock.payment_hash for lock in escrow.openings.locks}) != levels:
        return "two levels share a payment hash", ()
    network = next((name for name in NETWORKS if any(any(_opened(escrow, name, *pair)) for pair in chosen.items())), None)
    if network is None:
        return None
    for level, index in chosen.items():
        expected = len(escrow.body.instances[level - 1]) - 1
        if len(escrow.openings.seeds[level - 1]) != expected or not all(_opened(escrow, network, level, index)):
            return f"level {level}: an instance is not what its seed gives", ()
        found = _unopenable(escrow, attested, network, level)
        if found is not None:
            return found
    return None


def _index_of(escrow: _Escrow, level: int) -> int | None:
    """Which of the committed instances the opened lock is; None when it is none."""
    digests = escrow.body.instances[level - 1]
    try:
        return digests.index(instance_digest(escrow.openings.locks[level - 1]))
    except (ValueError, OverflowError):  # no encoding at all, hence never committed to; or another lock
        return None


def _opened(escrow: _Escrow, network: str, level: int, chosen: int) -> Iterator[bool]:
    """For each seed that was shown, in order of index, whether it gives the instance that was committed to."""
    digests = [digest for index, digest in enumerate(escrow.body.instances[level - 1]) if index != chosen]
    context = escrow.context(network, level)
    for seed, digest in zip(escrow.openings.seeds[level - 1], digests, strict=False):
        yield _gives(seed, digest, context, escrow.threshold)


def _gives(seed: Digest, digest: Digest, context: LockContext, threshold: int) -> bool:
    try:
        return instance_digest(expand(bytes.fromhex(seed), context, threshold).public) == digest
    except InvalidPoint:
        return False


def _unopenable(escrow: _Escrow, attested: _Attested, network: str, level: int) -> tuple[str, tuple[Said, ...]] | None:
    """Open the chosen lock with the attestations that reach its level."""
    lock, context = escrow.openings.locks[level - 1], escrow.context(network, level)
    shares: dict[int, int] = {}
    witnesses: list[Said] = []
    for index, item in escrow.oracles:
        for said, answer in attested.get((item.oracle, item.event_id), ()):
            digits = fulfils(item, answer)
            if index in shares or digits is None or not is_thermometer(digits) or sum(digits) < level:
                continue
            try:
                shares[index] = open_share(lock, context, index, [int(scalar, 16) for scalar in answer.scalars[:level]])
                witnesses.append(said)
            except RemoteProtocolError as error:
                if error.whose == context.payer:
                    return f"level {level}: {error.reason}", (said,)
    return _not_the_preimage(lock, shares, escrow.threshold, level, tuple(witnesses))


def _not_the_preimage(
    lock: LevelLock, shares: dict[int, int], threshold: int, level: int, witnesses: tuple[Said, ...]
) -> tuple[str, tuple[Said, ...]] | None:
    if len(shares) < threshold:
        return None
    try:
        combine(lock, shares, threshold)
    except RemoteProtocolError as error:
        return f"level {level}: {error.reason}", witnesses
    return None
