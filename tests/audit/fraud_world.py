"""The round of the documentation's examples, with payers and oracles that cheat in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from nostrain.core.effects import LockTerms
from nostrain.crypto import lock, shamir
from nostrain.crypto.instances import expand_instance, instance_digest, instance_seed
from nostrain.crypto.lock import LevelLock as CryptoLock
from nostrain.crypto.points import base_multiply, encode_point, multiply
from nostrain.daemon.runners.locks import context
from nostrain.hashes import sha256_hex
from nostrain.protocol import messages as m
from nostrain.protocol.event import Event
from nostrain.units import Digest, Pubkey
from tests.docs.examples import COORDINATOR, START, WORKERS, Examples

Bend = Callable[[int, int, CryptoLock], CryptoLock]
"""(level, index, lock) → the lock that a cheater commits to instead."""

ROUND = Examples()
PAYEE = WORKERS[0].pubkey
PUBLIC: tuple[Event, ...] = tuple(ROUND.events.values())
COUNT = 4
CHOSEN = (1, 0, 3, 2)


def honest(_level: int, _index: int, drawn: CryptoLock) -> CryptoLock:
    return drawn


def only(level: int, change: Callable[[CryptoLock], CryptoLock]) -> Bend:
    """Bend the instance that will be chosen for one level: the luckiest of cheaters."""

    def bend(at: int, index: int, drawn: CryptoLock) -> CryptoLock:
        return change(drawn) if at == level and index == CHOSEN[level - 1] else drawn

    return bend


def flipped(share: int) -> Callable[[CryptoLock], CryptoLock]:
    """One bit of one oracle's share is wrong."""

    def change(drawn: CryptoLock) -> CryptoLock:
        shares = [(j, f"{int(text, 16) ^ (j == share):064x}") for j, text in drawn.shares]
        return msgspec.structs.replace(drawn, shares=tuple(shares))

    return change


def wrong_preimage(level: int) -> CryptoLock:
    """A lock in which everything opens and fits, to a number that is not the preimage of its payment hash."""
    ctx = context(ROUND.terms, level)
    coefficients = [int(sha256_hex(f"coefficient {i}".encode()), 16) >> 1 for i in range(ROUND.terms.threshold)]
    r = int(sha256_hex(b"r"), 16) >> 1
    vector = tuple(encode_point(point).hex() for point in shamir.commit(coefficients))
    shell = CryptoLock(Digest(sha256_hex(b"paid for nothing")), encode_point(base_multiply(r)).hex(), vector, ())
    pads = ((oracle.index, lock._pad(multiply(lock._target(oracle, level), r), shell, ctx, oracle)) for oracle in ctx.oracles)
    return msgspec.structs.replace(shell, shares=tuple((j, f"{shamir.evaluate(coefficients, j) ^ pad:064x}") for j, pad in pads))


def made(
    bend: Bend = honest,
    *,
    network: str = "regtest",
    payer: Any = COORDINATOR,
    terms: LockTerms = ROUND.terms,
    spoil_seed: tuple[int, int] | None = None,
    offer_changes: dict[str, Any] | None = None,
    openings_changes: dict[str, Any] | None = None,
) -> tuple[Event, Event]:
    """An offer and its openings, signed by `payer`."""
    bound = msgspec.structs.replace(terms, network=network, payer=payer.pubkey)
    instances: list[tuple[Digest, ...]] = []
    seeds: list[tuple[Digest, ...]] = []
    chosen: list[m.LevelLock] = []
    for level in range(1, 5):
        secret = bytes.fromhex(payer.salt(f"fraud {level}"))
        drawn = [bend(level, i, expand_instance(secret, i, context(bound, level), bound.threshold).public) for i in range(COUNT)]
        instances.append(tuple(map(instance_digest, drawn)))
        shown = [Digest(instance_seed(secret, i).hex()) for i in range(COUNT) if i != CHOSEN[level - 1]]
        if spoil_seed is not None and spoil_seed[0] == level:
            shown[spoil_seed[1]] = Digest(sha256_hex(b"another seed"))
        seeds.append(tuple(shown))
        taken = drawn[CHOSEN[level - 1]]
        chosen.append(m.LevelLock(taken.payment_hash, taken.ephemeral, taken.feldman, taken.shares))
    head = (bound.run, bound.announcement, 1)
    digests = tuple(item.digest for _, item in bound.oracles)
    body = m.Offer(*head, bound.payee, bound.amounts_msat, digests, tuple(instances))
    offer = payer.says(msgspec.structs.replace(body, **(offer_changes or {})), START + 8)
    opened = m.Openings(*head, offer.id, tuple(seeds), tuple(chosen))
    return offer, payer.says(msgspec.structs.replace(opened, **(openings_changes or {})), START + 10)


def without(events: Sequence[Event], *labels: str) -> tuple[Event, ...]:
    """`events` less those of the round that are called so."""
    ids = {ROUND.events[label].id for label in labels}
    return tuple(event for event in events if event.id not in ids)


def relayed(items: Sequence[m.OracleItem], *, by: Any, payee: Pubkey | None = None) -> Event:
    """Oracle announcements, published by anyone."""
    told = tuple(msgspec.structs.replace(item, payee=payee or item.payee) for item in items)
    return by.says(m.OracleAnnouncements(ROUND.run, ROUND.round_id, 1, told), START + 50)


def attested(items: Sequence[m.AttestationItem], *, by: Any) -> Event:
    """Oracle attestations, published by anyone."""
    return by.says(m.Attestation(ROUND.run, ROUND.round_id, 1, ROUND.receipt, (), tuple(items)), START + 80)
