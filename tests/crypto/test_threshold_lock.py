"""The threshold lock: who opens it, who does not, and what a hostile payer or oracle cannot do."""

from __future__ import annotations

import dataclasses
import itertools
import random
from hashlib import sha256

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nostrain.crypto import shamir
from nostrain.crypto.lock import LevelLock, LockContext, check_lock_untrusted, combine, expand, open_share
from nostrain.crypto.points import N, base_multiply, encode_point, scalar_to_bytes
from nostrain.errors import LocalProtocolError, RemoteProtocolError

from .lock_world import LEVELS, Oracle, context, thermometer

SEED = bytes(range(32))
ORACLES = tuple(Oracle.make(index) for index in (1, 2, 3))
THRESHOLD = 2

replace = msgspec.structs.replace


def lock_of(level: int = 2, oracles: tuple[Oracle, ...] = ORACLES, threshold: int = THRESHOLD) -> tuple[LockContext, LevelLock, bytes]:
    ctx = context(oracles, level)
    instance = expand(SEED, ctx, threshold)
    return ctx, instance.public, instance.preimage


@settings(max_examples=15)
@given(st.integers(0, 10**9), st.integers(1, 4), st.data())
def test_every_t_subset_opens_and_no_smaller_one(salt: int, count: int, data: st.DataObject) -> None:
    """Over fresh keys and nonces of every parity, with gaps in the indices."""
    threshold = data.draw(st.integers(1, count))
    level = data.draw(st.integers(1, LEVELS))
    oracles = tuple(Oracle.make(2 * index + 1, str(salt)) for index in range(count))
    ctx, lock, preimage = lock_of(level, oracles, threshold)
    check_lock_untrusted(lock, ctx, threshold)
    assert sha256(preimage).hexdigest() == lock.payment_hash
    attested = data.draw(st.integers(level, LEVELS))
    shares = {o.index: open_share(lock, ctx, o.index, o.attest(thermometer(attested))[:level]) for o in oracles}
    for size in range(1, count + 1):
        for subset in itertools.combinations(shares, size):
            chosen = {index: shares[index] for index in subset}
            if size >= threshold:
                assert combine(lock, chosen, threshold) == preimage
            else:
                assert scalar_to_bytes(shamir.interpolate_at_zero(chosen)) != preimage
                with pytest.raises(LocalProtocolError, match="shares cannot open"):
                    combine(lock, chosen, threshold)


@settings(max_examples=40)
@given(st.lists(st.integers(0, 1), min_size=LEVELS, max_size=LEVELS), st.integers(1, LEVELS))
def test_a_level_opens_only_when_every_digit_up_to_it_is_one(digits: list[int], level: int) -> None:
    """Thermometer or not: a one above a zero opens nothing."""
    ctx, lock, _ = lock_of(level)
    scalars = ORACLES[0].attest(digits)
    if all(digits[:level]):
        assert open_share(lock, ctx, 1, scalars[:level]) > 0
    else:
        for used in (scalars[:level], scalars, [s for s, digit in zip(scalars, digits, strict=True) if digit]):
            with pytest.raises(RemoteProtocolError, match=ORACLES[0].public.pubkey):
                open_share(lock, ctx, 1, used)


def test_another_oracles_scalars_open_nothing() -> None:
    ctx, lock, _ = lock_of()
    with pytest.raises(RemoteProtocolError, match="oracle scalars"):
        open_share(lock, ctx, 1, ORACLES[1].attest(thermometer(2))[:2])


def test_scalars_that_sum_to_nothing_open_nothing() -> None:
    ctx, lock, _ = lock_of()
    for scalars in ([], [0, 0], [1, N - 1], [5]):
        with pytest.raises(RemoteProtocolError, match="oracle scalars"):
            open_share(lock, ctx, 1, scalars)


CHANGES: dict[str, object] = {
    "network": "signet",
    "run": "e" * 64,
    "announcement_id": "e" * 64,
    "payer": "e" * 64,
    "payee": "e" * 64,
    "amount_msat": 50_001,
}


@pytest.mark.parametrize("name", CHANGES)
def test_each_context_field_matters(name: str) -> None:
    """A lock made for one context is worthless in another; so is its seed."""
    ctx, lock, _ = lock_of()
    other = dataclasses.replace(ctx, **{name: CHANGES[name]})
    scalars = ORACLES[0].attest(thermometer(2))[:2]
    assert open_share(lock, ctx, 1, scalars) > 0
    with pytest.raises(RemoteProtocolError, match="polynomial"):
        open_share(lock, other, 1, scalars)
    assert expand(SEED, other, THRESHOLD).public.payment_hash != lock.payment_hash


def test_level_index_and_announcement_matter() -> None:
    ctx, lock, _ = lock_of(2)
    scalars = ORACLES[0].attest(thermometer(4))
    with pytest.raises(RemoteProtocolError, match="polynomial"):
        open_share(lock, dataclasses.replace(ctx, level=3), 1, scalars[:3])
    digest = dataclasses.replace(ctx.oracles[0], announcement="f" * 64)
    with pytest.raises(RemoteProtocolError, match="polynomial"):
        open_share(lock, dataclasses.replace(ctx, oracles=(digest, *ctx.oracles[1:])), 1, scalars[:2])
    moved = dataclasses.replace(ctx.oracles[0], index=4)
    relabelled = replace(lock, shares=((2, lock.shares[1][1]), (3, lock.shares[2][1]), (4, lock.shares[0][1])))
    with pytest.raises(RemoteProtocolError, match="polynomial"):
        open_share(relabelled, dataclasses.replace(ctx, oracles=(*ctx.oracles[1:], moved)), 4, scalars[:2])


@pytest.mark.parametrize("name", ["payment_hash", "ephemeral", "feldman"])
def test_each_lock_field_is_bound_by_the_shares(name: str) -> None:
    """Exchanging E, the payment hash or the polynomial under the shares is seen by whoever opens one."""
    ctx, lock, _ = lock_of()
    other = expand(SEED[::-1], ctx, THRESHOLD).public
    with pytest.raises(RemoteProtocolError, match="polynomial"):
        open_share(replace(lock, **{name: getattr(other, name)}), ctx, 1, ORACLES[0].attest(thermometer(2))[:2])


def test_a_false_share_is_the_payers_fault_and_named_so() -> None:
    ctx, lock, _ = lock_of()
    bad = replace(lock, shares=((1, "00" * 31 + "01"), *lock.shares[1:]))
    check_lock_untrusted(bad, ctx, THRESHOLD)
    with pytest.raises(RemoteProtocolError, match="share of oracle 1") as caught:
        open_share(bad, ctx, 1, ORACLES[0].attest(thermometer(2))[:2])
    assert caught.value.whose == ctx.payer


def test_a_hash_of_something_else_is_noticed_when_the_shares_are_combined() -> None:
    """Shares consistent with Feldman whose secret is not the preimage: only cut-and-choose prevents it, the fraud proof shows it."""
    _, lock, _ = lock_of()
    with pytest.raises(RemoteProtocolError, match="do not give the preimage"):
        combine(lock, {1: 5, 2: 7}, 2)


def test_expansion_is_pure_and_seeds_are_unrelated() -> None:
    ctx = context(ORACLES, 2)
    assert expand(SEED, ctx, 2) == expand(SEED, ctx, 2)
    locks = [expand(SEED, ctx, 2).public, expand(SEED[::-1], ctx, 2).public, expand(SEED, ctx, 3).public]
    assert len({lock.payment_hash for lock in locks}) == len({lock.ephemeral for lock in locks}) == 3
    with pytest.raises(LocalProtocolError, match="32 bytes"):
        expand(SEED[:-1], ctx, 2)


def test_a_lock_survives_json_and_an_instance_hides_its_preimage() -> None:
    ctx = context(ORACLES, 2)
    instance = expand(SEED, ctx, 2)
    assert msgspec.json.decode(msgspec.json.encode(instance.public), type=LevelLock) == instance.public
    for text in (repr(instance), str(instance), f"{instance!r:.500}"):
        assert instance.preimage.hex() not in text
        assert repr(instance.preimage) not in text
        assert instance.public.payment_hash in text


def hostile_locks() -> dict[str, LevelLock]:
    _, lock, _ = lock_of()
    (_, first), (_, second), (_, third) = lock.shares
    return {
        "vector too short": replace(lock, feldman=lock.feldman[:1]),
        "vector too long": replace(lock, feldman=(*lock.feldman, lock.feldman[0])),
        "vector empty": replace(lock, feldman=()),
        "point at infinity": replace(lock, ephemeral="00"),
        "infinity padded": replace(lock, ephemeral="00" * 33),
        "off the curve": replace(lock, ephemeral="02" + "00" * 31 + "05"),
        "x beyond p": replace(lock, feldman=(lock.feldman[0], "02" + "ff" * 32)),
        "uppercase": replace(lock, ephemeral=lock.ephemeral.upper()),
        "newline": replace(lock, ephemeral=lock.ephemeral + "\n"),
        "payment hash": replace(lock, payment_hash=lock.payment_hash[:-2]),
        "share missing": replace(lock, shares=lock.shares[:2]),
        "share extra": replace(lock, shares=(*lock.shares, (4, first))),
        "share twice": replace(lock, shares=((1, first), (1, second), (3, third))),
        "index 0": replace(lock, shares=((0, first), (2, second), (3, third))),
        "order": replace(lock, shares=((2, second), (1, first), (3, third))),
        "share too long": replace(lock, shares=((1, first + "00"), *lock.shares[1:])),
        "share not hex": replace(lock, shares=((1, "zz" * 32), *lock.shares[1:])),
        "vanishes at 1": replace(lock, feldman=(encode_point(base_multiply(7)).hex(), encode_point(base_multiply(N - 7)).hex())),
    }


@pytest.mark.parametrize("name", hostile_locks())
def test_hostile_locks_are_refused_before_any_work(name: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        check_lock_untrusted(hostile_locks()[name], context(ORACLES, 2), THRESHOLD)
    assert caught.value.whose == "c" * 64
    assert "\n" not in str(caught.value)


@settings(max_examples=60)
@given(st.randoms(use_true_random=False))
def test_mutated_locks_raise_nothing_but_remote_errors(rng: random.Random) -> None:
    """Mutated in JSON: what does not decode is refused by msgspec, what does is refused or judged by us, and a share is never wrong."""
    ctx, lock, _ = lock_of()
    text = bytearray(msgspec.json.encode(lock))
    for _ in range(rng.randint(1, 3)):
        text[rng.randrange(len(text))] = rng.choice(b'0123456789abcdef"[],')
    try:
        mutated = msgspec.json.decode(bytes(text), type=LevelLock)
    except msgspec.DecodeError:
        return
    try:
        check_lock_untrusted(mutated, ctx, THRESHOLD)
        share = open_share(mutated, ctx, 1, ORACLES[0].attest(thermometer(2))[:2])
    except RemoteProtocolError:
        return
    assert share == open_share(lock, ctx, 1, ORACLES[0].attest(thermometer(2))[:2])


@pytest.mark.parametrize(
    "change",
    [
        {"level": 0},
        {"level": LEVELS + 1},
        {"amount_msat": 0},
        {"amount_msat": 1 << 63},
        {"payer": "C" * 64},
        {"announcement_id": ""},
        {"oracles": (ORACLES[1].public, ORACLES[0].public)},
        {"oracles": (ORACLES[0].public, ORACLES[0].public)},
        {"oracles": (Oracle.make(0).public,)},
        {"oracles": (ORACLES[0].public, dataclasses.replace(ORACLES[0].public, index=2))},
        {"oracles": (dataclasses.replace(ORACLES[0].public, nonces=("x",) * LEVELS),)},
    ],
    ids=lambda change: "-".join(change),
)
def test_a_malformed_context_is_our_own_fault(change: dict[str, object]) -> None:
    with pytest.raises(LocalProtocolError):
        dataclasses.replace(context(ORACLES, 1), **change)


@pytest.mark.parametrize("threshold", [0, 4])
def test_a_threshold_beyond_the_oracles_is_our_own_fault(threshold: int) -> None:
    ctx, lock, _ = lock_of()
    with pytest.raises(LocalProtocolError, match="threshold"):
        expand(SEED, ctx, threshold)
    with pytest.raises(LocalProtocolError, match="threshold"):
        check_lock_untrusted(lock, ctx, threshold)
    with pytest.raises(LocalProtocolError, match="no oracle 9"):
        open_share(lock, ctx, 9, [1, 1])
