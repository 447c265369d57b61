"""The threshold lock of one level: t of n oracle attestations open the preimage of one Lightning payment (design section 6).

The payer draws the preimage x and shares it by a polynomial f of degree t−1 with f(0) = x. The share of oracle j is encrypted to
T_{j,k} = Σ_{i≤k} S_{j,i}, the point whose scalar is the sum of j's signatures on "digit i is 1" for i ≤ k:
C_j = f(j) ⊕ tagged_hash("nostrain/lock", compressed(r·T_{j,k}) ‖ context_j) with E = r·G. Whoever knows Σs computes Σs·E = r·T_{j,k}.

An instance is a pure function of a seed and the public context, which is what makes cut-and-choose (`crypto.instances`) possible.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final, Protocol

import msgspec

from nostrain.crypto import shamir
from nostrain.crypto.oracle import level_point
from nostrain.crypto.points import (
    InvalidPoint,
    InvalidScalar,
    N,
    Point,
    base_multiply,
    decode_point,
    encode_point,
    multiply,
    require_scalar,
    scalar_to_bytes,
)
from nostrain.errors import LocalProtocolError, RemoteProtocolError
from nostrain.hashes import tagged_hash
from nostrain.units import Digest, EventId, Msat, Pubkey, is_hex32

_COMPRESSED: Final = re.compile(r"0[23][0-9a-f]{64}")
_MAX_INDEX: Final = 0xFFFF


@dataclass(frozen=True, slots=True)
class LockOracle:
    """Oracle j as the lock sees it: its index j ≥ 1, key P_j, digest of its announcement, and announced nonce points R_{j,1..K} (x-only hex)."""

    index: int
    pubkey: Pubkey
    announcement: Digest
    nonces: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LockContext:
    """Everything public that one level's lock is bound to; both sides build it from verified events, `oracles` sorted by index.

    Raises LocalProtocolError when it is not well-formed: the builder checks what the other side chose (amount, level) beforehand.
    """

    network: str
    run: str
    announcement_id: EventId
    payer: Pubkey
    payee: Pubkey
    level: int
    oracles: tuple[LockOracle, ...]
    amount_msat: Msat

    def __post_init__(self) -> None:
        indices = [oracle.index for oracle in self.oracles]
        ids = [self.announcement_id, self.payer, self.payee]
        for oracle in self.oracles:
            ids += [oracle.pubkey, oracle.announcement, *oracle.nonces]
        if not all(map(is_hex32, ids)):
            raise LocalProtocolError("lock context: an id, key, digest or nonce is not 64 lowercase hex characters")
        if indices != sorted(set(indices)) or not all(1 <= index <= _MAX_INDEX for index in indices):
            raise LocalProtocolError(f"lock context: oracle indices {indices} are not strictly increasing from 1")
        if len({oracle.pubkey for oracle in self.oracles}) != len(indices):
            raise LocalProtocolError("lock context: one oracle key has two indices")
        if self.level < 1 or any(len(oracle.nonces) < self.level for oracle in self.oracles):
            raise LocalProtocolError(f"lock context: level {self.level} is not among the announced digits")
        if not 0 < self.amount_msat < 1 << 63:
            raise LocalProtocolError(f"lock context: an amount of {self.amount_msat} msat")

    def oracle(self, index: int) -> LockOracle:
        """The oracle with this index. Raises LocalProtocolError if there is none."""
        for oracle in self.oracles:
            if oracle.index == index:
                return oracle
        raise LocalProtocolError(f"lock context: no oracle {index}")


class Lock(Protocol):
    """The public part of an instance, in any struct that has these fields (hex as in LevelLock)."""

    @property
    def payment_hash(self) -> str: ...
    @property
    def ephemeral(self) -> str: ...
    @property
    def feldman(self) -> tuple[str, ...]: ...
    @property
    def shares(self) -> tuple[tuple[int, str], ...]: ...


class LevelLock(msgspec.Struct, frozen=True):
    """SHA256(x), E (33 bytes hex), the t Feldman commitments (33 bytes hex each) and (j, C_j as 32 bytes hex) by increasing j."""

    payment_hash: Digest
    ephemeral: str
    feldman: tuple[str, ...]
    shares: tuple[tuple[int, str], ...]


@dataclass(frozen=True, slots=True)
class Instance:
    """A lock with the secret that it locks: the payer's, never sent. The preimage is kept out of repr."""

    public: LevelLock
    preimage: bytes = field(repr=False)


def expand(seed: bytes, ctx: LockContext, threshold: int) -> Instance:
    """The instance that a 32-byte seed gives in this context: pure, the same for payer and payee.

    Raises LocalProtocolError when threshold is not in 1..number of oracles or the seed is not 32 bytes, InvalidPoint when an oracle's
    key or nonce is not on the curve.
    """
    _require_threshold(ctx, threshold)
    if len(seed) != 32:
        raise LocalProtocolError(f"a lock is expanded from a seed of 32 bytes, not {len(seed)}")
    root = tagged_hash("nostrain/lock/seed", seed, _public_digest(ctx, threshold))
    coefficients = [_draw(root, b"f", i) for i in range(threshold)]
    r = _draw(root, b"r", 0)
    preimage = scalar_to_bytes(coefficients[0])
    shell = LevelLock(
        payment_hash=Digest(sha256(preimage).hexdigest()),
        ephemeral=encode_point(base_multiply(r)).hex(),
        feldman=tuple(encode_point(point).hex() for point in shamir.commit(coefficients)),
        shares=(),
    )
    shares: list[tuple[int, str]] = []
    for oracle in ctx.oracles:
        pad = _pad(multiply(_target(oracle, ctx.level), r), shell, ctx, oracle)
        shares.append((oracle.index, scalar_to_bytes(shamir.evaluate(coefficients, oracle.index) ^ pad).hex()))
    return Instance(msgspec.structs.replace(shell, shares=tuple(shares)), preimage)


def check_lock_untrusted(lock: Lock, ctx: LockContext, threshold: int) -> None:
    """What the payee checks before it works: encodings, a Feldman vector of exactly t valid points that has a share for every oracle,
    one C_j for each oracle of the context and no other.

    That C_j holds f(j), and f(0) the preimage, is not visible here: cut-and-choose and the fraud proof see to it.
    Raises RemoteProtocolError; LocalProtocolError when threshold is not in 1..number of oracles.
    """
    _require_threshold(ctx, threshold)
    _, vector = _decode(lock, ctx)
    if len(vector) != threshold:
        raise _fault(ctx, f"{len(vector)} Feldman commitments for a threshold of {threshold}")
    if [index for index, _ in lock.shares] != [oracle.index for oracle in ctx.oracles]:
        raise _fault(ctx, f"shares for {[index for index, _ in lock.shares]}, not for the oracles of the round")
    for oracle in ctx.oracles:
        try:
            shamir.committed_share(vector, oracle.index)
            _target(oracle, ctx.level)
        except InvalidPoint as error:
            raise _fault(ctx, f"oracle {oracle.index}: {error}") from None


def open_share(lock: Lock, ctx: LockContext, index: int, scalars: Sequence[int]) -> int:
    """f(j) from the attestation scalars s_{j,1..k} of oracle j = `index`, verified against the Feldman vector.

    Raises RemoteProtocolError naming the oracle when the scalars are not those of "digit i is 1" for every i ≤ k, and naming the payer
    when they are and the share is still wrong: then this lock and the public attestation together are the fraud proof.
    Raises LocalProtocolError when the context has no such oracle.
    """
    oracle = ctx.oracle(index)
    ephemeral, vector = _decode(lock, ctx)
    ciphertext = dict(lock.shares).get(index)
    if ciphertext is None:
        raise _fault(ctx, f"no share for oracle {index}")
    try:
        opening = require_scalar(sum(scalars) % N)
        opens = len(scalars) == ctx.level and base_multiply(opening) == _target(oracle, ctx.level)
    except (InvalidScalar, InvalidPoint):
        opens = False
    if not opens:
        raise RemoteProtocolError("oracle scalars", f"do not attest every digit up to {ctx.level} as 1", whose=oracle.pubkey)
    share = int(ciphertext, 16) ^ _pad(multiply(ephemeral, opening), lock, ctx, oracle)
    try:
        consistent = base_multiply(share) == shamir.committed_share(vector, index)
    except (InvalidScalar, InvalidPoint):
        consistent = False
    if not consistent:
        raise _fault(ctx, f"share of oracle {index} does not lie on the committed polynomial")
    return share


def combine(lock: Lock, shares: Mapping[int, int], threshold: int) -> bytes:
    """The 32-byte preimage from at least t opened shares {j: f(j)}.

    Raises LocalProtocolError on fewer, RemoteProtocolError when the result is not the preimage of the payment hash (the payer's fraud).
    """
    if len(shares) < threshold:
        raise LocalProtocolError(f"{len(shares)} shares cannot open a lock of threshold {threshold}")
    used = {index: shares[index] for index in sorted(shares)[:threshold]}
    preimage = scalar_to_bytes(shamir.interpolate_at_zero(used))
    if sha256(preimage).hexdigest() != lock.payment_hash:
        raise RemoteProtocolError("lock", f"its {threshold} verified shares do not give the preimage of {lock.payment_hash}")
    return preimage


def _decode(lock: Lock, ctx: LockContext) -> tuple[Point, tuple[Point, ...]]:
    """E and the Feldman vector, with every encoding of the lock checked."""
    points = (lock.ephemeral, *lock.feldman)
    if not is_hex32(lock.payment_hash) or not all(is_hex32(ciphertext) for _, ciphertext in lock.shares):
        raise _fault(ctx, "payment hash or share is not 64 lowercase hex characters")
    if not lock.feldman or not all(_COMPRESSED.fullmatch(point) for point in points):
        raise _fault(ctx, "a point is missing or not a compressed encoding in lowercase hex")
    try:
        ephemeral, *vector = (decode_point(bytes.fromhex(point)) for point in points)
    except InvalidPoint as error:
        raise _fault(ctx, f"a point of the lock is {error}") from None
    return ephemeral, tuple(vector)


def _target(oracle: LockOracle, level: int) -> Point:
    return level_point(bytes.fromhex(oracle.pubkey), tuple(map(bytes.fromhex, oracle.nonces)), level)


def _pad(shared: Point, lock: Lock, ctx: LockContext, oracle: LockOracle) -> int:
    return int.from_bytes(tagged_hash("nostrain/lock", encode_point(shared), _context(lock, ctx, oracle)), "big")


def _context(lock: Lock, ctx: LockContext, oracle: LockOracle) -> bytes:
    """context_j, in the order of design section 6; each field is preceded by its length, so no two contexts encode alike."""
    return _hash_fields(
        ctx.network.encode(),
        ctx.run.encode(),
        bytes.fromhex(ctx.announcement_id),
        bytes.fromhex(ctx.payer),
        bytes.fromhex(ctx.payee),
        _integer(ctx.level),
        _integer(oracle.index),
        bytes.fromhex(oracle.pubkey),
        bytes.fromhex(oracle.announcement),
        _integer(ctx.amount_msat),
        bytes.fromhex(lock.payment_hash),
        bytes.fromhex(lock.ephemeral),
        b"".join(map(bytes.fromhex, lock.feldman)),
    )


def _public_digest(ctx: LockContext, threshold: int) -> bytes:
    """Of the whole context, all oracles included: a seed that is used twice in different contexts gives unrelated secrets."""
    fields = [ctx.network.encode(), ctx.run.encode(), *map(bytes.fromhex, (ctx.announcement_id, ctx.payer, ctx.payee))]
    fields += [_integer(ctx.level), _integer(ctx.amount_msat), _integer(threshold)]
    for oracle in ctx.oracles:
        fields += [_integer(oracle.index), *map(bytes.fromhex, (oracle.pubkey, oracle.announcement, "".join(oracle.nonces)))]
    return _hash_fields(*fields)


def _hash_fields(*fields: bytes) -> bytes:
    return sha256(b"".join(len(part).to_bytes(4, "big") + part for part in fields)).digest()


def _integer(value: int) -> bytes:
    return value.to_bytes(8, "big")


def _draw(root: bytes, label: bytes, index: int) -> int:
    """A scalar in 1..n-1, uniform: hashes above the order are skipped, not reduced."""
    for attempt in range(256):
        candidate = int.from_bytes(tagged_hash("nostrain/lock/draw", root, label, index.to_bytes(2, "big"), bytes([attempt])), "big")
        if 0 < candidate < N:
            return candidate
    raise AssertionError("256 hashes in a row above the group order")


def _require_threshold(ctx: LockContext, threshold: int) -> None:
    if not 1 <= threshold <= len(ctx.oracles):
        raise LocalProtocolError(f"a threshold of {threshold} with {len(ctx.oracles)} oracles")


def _fault(ctx: LockContext, reason: str) -> RemoteProtocolError:
    return RemoteProtocolError(f"lock of level {ctx.level}", reason, whose=ctx.payer)
