"""The lock runners over the real crypto: payer and payee as their machines drive them, and payers who cheat."""

from __future__ import annotations

import base64
from dataclasses import dataclass, replace
from hashlib import sha256

import msgspec
import pytest

from nostrain.core.effects import CheckLocks, DrawLocks, Failed, LocksDrawn, LocksOpened, LockTerms, Ok, OpenLocks, Unlock, Unlocked
from nostrain.crypto import lock, schnorr, shamir
from nostrain.crypto.instances import expand_instance, instance_digest
from nostrain.crypto.oracle import attestation_scalar, outcome_message
from nostrain.crypto.points import base_multiply, encode_point, multiply, scalar_from_bytes
from nostrain.daemon.runners import locks
from nostrain.errors import RemoteProtocolError
from nostrain.protocol.messages import LevelLock, OracleItem
from nostrain.units import Digest, EventId, Msat, Pubkey, UnixTime

LEVELS, ORACLES, THRESHOLD, INSTANCES = 2, 3, 2, 3
SEEDS = tuple(Digest(sha256(f"seed {level}".encode()).hexdigest()) for level in range(LEVELS))
CHOSEN = (2, 0)


def secret(label: str) -> bytes:
    return sha256(label.encode()).digest()


@dataclass(frozen=True)
class Signer:
    """An oracle with known secrets."""

    index: int

    @property
    def key(self) -> bytes:
        return secret(f"oracle {self.index}")

    @property
    def nonces(self) -> list[int]:
        return [scalar_from_bytes(secret(f"nonce {self.index} {level}")) for level in range(LEVELS)]

    @property
    def item(self) -> OracleItem:
        points = tuple(encode_point(base_multiply(k))[1:].hex() for k in self.nonces)
        pubkey = Pubkey(schnorr.public_key(self.key).hex())
        digest = Digest(secret(f"tlv {self.index}").hex())
        return OracleItem(Pubkey("d" * 64), base64.b64encode(b"tlv").decode(), "event", pubkey, points, UnixTime(5), digest)

    def scalars(self, level: int) -> tuple[str, ...]:
        """What its attestation of `level` reveals: s_1 … s_level."""
        signed = [schnorr.sign_with_nonce(self.key, k, outcome_message("1")) for k in self.nonces[:level]]
        return tuple(f"{attestation_scalar(signature):064x}" for signature in signed)


TERMS = LockTerms(
    network="simnet",
    run=EventId("a" * 64),
    announcement=EventId("b" * 64),
    payer=Pubkey("c" * 64),
    payee=Pubkey("d" * 64),
    amounts_msat=(Msat(1000), Msat(2000)),
    oracles=tuple((index, Signer(index).item) for index in range(1, ORACLES + 1)),
    threshold=THRESHOLD,
    instances=INSTANCES,
)


@dataclass(frozen=True)
class Deal:
    """What the payee has after the payer's answer."""

    instances: tuple[tuple[Digest, ...], ...]
    seeds: tuple[tuple[Digest, ...], ...]
    locks: tuple[LevelLock, ...]

    def check(self) -> object:
        return locks.run(CheckLocks("payee", "check", TERMS, self.instances, CHOSEN, self.seeds, self.locks))

    def unlock(self, level: int, *signers: int) -> object:
        scalars = tuple((index, Signer(index).scalars(level)) for index in signers)
        return locks.run(Unlock("payee", "unlock", TERMS, level, self.locks[level - 1], scalars))


@pytest.fixture(scope="module")
def deal() -> Deal:
    drawn = locks.run(DrawLocks("payer", "draw", TERMS, SEEDS))
    assert isinstance(drawn, LocksDrawn)
    opened = locks.run(OpenLocks("payer", "open", TERMS, SEEDS, CHOSEN))
    assert isinstance(opened, LocksOpened)
    return Deal(drawn.instances, opened.seeds, opened.locks)


def test_an_honest_offer_passes_and_opens_level_by_level(deal: Deal) -> None:
    assert deal.check() == Ok()
    for level in (1, 2):
        outcome = deal.unlock(level, 1, 3)
        assert isinstance(outcome, Unlocked)
        assert sha256(bytes.fromhex(outcome.preimage)).hexdigest() == deal.locks[level - 1].payment_hash


def test_drawing_and_opening_again_gives_the_same(deal: Deal) -> None:
    """A restart recomputes them: another offer under the same seeds would be an equivocation."""
    assert locks.run(DrawLocks("payer", "draw", TERMS, SEEDS)) == LocksDrawn(deal.instances)
    assert locks.run(OpenLocks("payer", "open", TERMS, SEEDS, CHOSEN)) == LocksOpened(deal.seeds, deal.locks)


def test_one_attestation_is_not_enough(deal: Deal) -> None:
    assert isinstance(deal.unlock(1, 2), Failed)


def test_a_lower_level_opens_no_higher_one(deal: Deal) -> None:
    scalars = tuple((index, Signer(index).scalars(1)) for index in (1, 2))
    outcome = locks.run(Unlock("payee", "unlock", TERMS, 2, deal.locks[1], scalars))
    assert isinstance(outcome, Failed)


def test_a_false_attestation_is_passed_over_when_enough_are_true(deal: Deal) -> None:
    scalars = ((1, Signer(2).scalars(1)), (2, Signer(2).scalars(1)), (3, Signer(3).scalars(1)))
    assert isinstance(locks.run(Unlock("payee", "unlock", TERMS, 1, deal.locks[0], scalars)), Unlocked)


def changed_lock(sound: LevelLock, **fields: object) -> LevelLock:
    return msgspec.structs.replace(sound, **fields)


def cheats(deal: Deal) -> dict[str, Deal]:
    first, second = deal.locks
    other = Digest(sha256(b"other").hexdigest())
    return {
        "another hash": replace(deal, locks=(changed_lock(first, payment_hash=other), second)),
        "another level's lock": replace(deal, locks=(second, first)),
        "one lock for two levels": replace(deal, locks=(first, first)),
        "a wrong share": replace(deal, locks=(changed_lock(first, shares=((1, "00" * 32), *first.shares[1:])), second)),
        "a share too few": replace(deal, locks=(changed_lock(first, shares=first.shares[1:]), second)),
        "a point that is none": replace(deal, locks=(changed_lock(first, ephemeral="02" + "ff" * 32), second)),
        "a vector of another degree": replace(deal, locks=(changed_lock(first, feldman=first.feldman[:1]), second)),
        "a seed that is not the committed one": replace(deal, seeds=((other, *deal.seeds[0][1:]), deal.seeds[1])),
        "a seed too few": replace(deal, seeds=(deal.seeds[0][1:], deal.seeds[1])),
        "a seed that is no hex": replace(deal, seeds=((Digest("x" * 64), *deal.seeds[0][1:]), deal.seeds[1])),
        "the same instance twice": replace(deal, instances=((deal.instances[0][0],) * INSTANCES, deal.instances[1])),
    }


@pytest.mark.parametrize("cheat", range(11))
def test_a_cheating_payer_is_told_and_never_crashes_the_payee(deal: Deal, cheat: int) -> None:
    name, offer = list(cheats(deal).items())[cheat]
    outcome = offer.check()
    assert isinstance(outcome, Failed), name
    assert outcome.reason
    assert "\n" not in outcome.reason


def same_preimage_again(deal: Deal) -> Deal:
    """A sound lock of level 2 on the preimage of level 1, committed to before the choice: what a payer who wants two releases for one would make."""
    coefficients = [scalar_from_bytes(expand_instance(bytes.fromhex(SEEDS[0]), CHOSEN[0], locks.context(TERMS, 1), THRESHOLD).preimage), 7]
    ctx, r = locks.context(TERMS, 2), 11
    shell = lock.LevelLock(
        payment_hash=deal.locks[0].payment_hash,
        ephemeral=encode_point(base_multiply(r)).hex(),
        feldman=tuple(encode_point(point).hex() for point in shamir.commit(coefficients)),
        shares=(),
    )
    pads = [(one.index, lock._pad(multiply(lock._target(one, 2), r), shell, ctx, one)) for one in ctx.oracles]
    shares = tuple((index, (shamir.evaluate(coefficients, index) ^ pad).to_bytes(32, "big").hex()) for index, pad in pads)
    forged = LevelLock(shell.payment_hash, shell.ephemeral, shell.feldman, shares)
    committed = tuple(instance_digest(forged) if index == CHOSEN[1] else known for index, known in enumerate(deal.instances[1]))
    return replace(deal, instances=(deal.instances[0], committed), locks=(deal.locks[0], forged))


def test_two_levels_with_one_preimage_are_refused(deal: Deal) -> None:
    """Each level passes alone, so only the comparison of both can tell: the first release would pay for both."""
    assert same_preimage_again(deal).check() == Failed("two levels share a payment hash")


def test_an_offer_for_another_context_is_refused(deal: Deal) -> None:
    """Locks bound to another payee, amount or oracle are not ours, however well-formed."""
    for terms in (
        msgspec.structs.replace(TERMS, payee=Pubkey("e" * 64)),
        msgspec.structs.replace(TERMS, amounts_msat=(Msat(1), Msat(2000))),
        msgspec.structs.replace(TERMS, oracles=TERMS.oracles[:2]),
    ):
        outcome = locks.run(CheckLocks("payee", "check", terms, deal.instances, CHOSEN, deal.seeds, deal.locks))
        assert isinstance(outcome, Failed)


def test_a_choice_that_does_not_exist_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="instance 9 of 3"):
        locks.run(OpenLocks("payer", "open", TERMS, SEEDS, (9, 0)))
