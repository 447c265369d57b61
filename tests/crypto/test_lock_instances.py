"""Cut-and-choose: an honest payer passes for every choice, a cheat is caught for every choice but one."""

from __future__ import annotations

import pytest

from nostrain.crypto.instances import (
    INSTANCES,
    check_distinct_untrusted,
    check_openings_untrusted,
    commit_instances,
    expand_instance,
    instance_digest,
    instance_seed,
    open_instances,
)
from nostrain.crypto.lock import combine, open_share
from nostrain.errors import RemoteProtocolError

from .lock_world import Oracle, context, thermometer

LEVEL_SEED = bytes(range(32))
ORACLES = tuple(Oracle.make(index) for index in (1, 2, 3))
CTX = context(ORACLES, 2)
DIGESTS = commit_instances(LEVEL_SEED, CTX, 2)


@pytest.mark.parametrize("chosen", range(INSTANCES))
def test_an_honest_payer_passes_and_the_chosen_lock_pays(chosen: int) -> None:
    check_distinct_untrusted(DIGESTS, CTX)
    lock, seeds = open_instances(LEVEL_SEED, chosen, CTX, 2)
    check_openings_untrusted(DIGESTS, chosen, lock, seeds, CTX, 2)
    secret = instance_seed(LEVEL_SEED, chosen).hex()
    assert secret not in seeds
    assert len(seeds) == INSTANCES - 1
    shares = {o.index: open_share(lock, CTX, o.index, o.attest(thermometer(2))[:2]) for o in ORACLES[1:]}
    assert combine(lock, shares, 2) == expand_instance(LEVEL_SEED, chosen, CTX, 2).preimage


@pytest.mark.parametrize("bad", range(INSTANCES))
def test_one_bad_instance_survives_one_choice_in_eight(bad: int) -> None:
    """The payer commits to an instance that no seed gives: only whoever picks that very one does not see it."""
    good = expand_instance(LEVEL_SEED, bad, CTX, 2).public
    false = type(good)(good.payment_hash, good.ephemeral, good.feldman, ((1, "11" * 32), *good.shares[1:]))
    digests = (*DIGESTS[:bad], instance_digest(false), *DIGESTS[bad + 1 :])
    for chosen in range(INSTANCES):
        lock, seeds = open_instances(LEVEL_SEED, chosen, CTX, 2)
        if chosen == bad:
            check_openings_untrusted(digests, chosen, false, seeds, CTX, 2)
            continue
        with pytest.raises(RemoteProtocolError, match=f"instance {bad} is not what its seed gives") as caught:
            check_openings_untrusted(digests, chosen, lock, seeds, CTX, 2)
        assert caught.value.whose == CTX.payer


def test_the_first_instance_that_differs_is_named() -> None:
    lock, seeds = open_instances(LEVEL_SEED, 0, CTX, 2)
    digests = [*DIGESTS[:3], "00" * 32, "00" * 32, *DIGESTS[5:]]
    with pytest.raises(RemoteProtocolError, match="instance 3 is not what its seed gives"):
        check_openings_untrusted(digests, 0, lock, seeds, CTX, 2)


def test_a_lock_other_than_the_chosen_one_is_refused() -> None:
    _, seeds = open_instances(LEVEL_SEED, 0, CTX, 2)
    other, _ = open_instances(LEVEL_SEED, 1, CTX, 2)
    with pytest.raises(RemoteProtocolError, match="not the one committed to"):
        check_openings_untrusted(DIGESTS, 0, other, seeds, CTX, 2)


@pytest.mark.parametrize(
    ("seeds", "reason"),
    [
        (lambda s: s[:-1], "6 seeds for 7"),
        (lambda s: (*s, s[0]), "8 seeds for 7"),
        (lambda s: (s[1], s[0], *s[2:]), "instance 0 is not"),
        (lambda s: ("00" * 32, *s[1:]), "instance 0 is not"),
        (lambda s: (s[0][:-2], *s[1:]), "the seed of instance 0"),
        (lambda s: ("xx" * 32, *s[1:]), "the seed of instance 0"),
    ],
)
def test_bad_seeds_are_refused(seeds, reason: str) -> None:
    lock, honest = open_instances(LEVEL_SEED, 7, CTX, 2)
    with pytest.raises(RemoteProtocolError, match=reason):
        check_openings_untrusted(DIGESTS, 7, lock, seeds(honest), CTX, 2)


def test_openings_of_another_context_or_threshold_are_refused() -> None:
    lock, seeds = open_instances(LEVEL_SEED, 7, CTX, 2)
    with pytest.raises(RemoteProtocolError, match="instance 0"):
        check_openings_untrusted(DIGESTS, 7, lock, seeds, context(ORACLES, 2, amount_msat=1), 2)
    with pytest.raises(RemoteProtocolError, match="Feldman"):
        check_openings_untrusted(DIGESTS, 7, lock, seeds, CTX, 3)


@pytest.mark.parametrize("chosen", [-1, INSTANCES])
def test_a_choice_out_of_range_is_the_payees_fault(chosen: int) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        open_instances(LEVEL_SEED, chosen, CTX, 2)
    assert caught.value.whose == CTX.payee


@pytest.mark.parametrize("digests", [DIGESTS[:-1], (*DIGESTS, "00" * 32), (*DIGESTS[:-1], DIGESTS[0]), (*DIGESTS[:-1], "x")])
def test_offers_need_as_many_different_digests_as_agreed(digests: tuple[str, ...]) -> None:
    with pytest.raises(RemoteProtocolError, match="8 different digests"):
        check_distinct_untrusted(digests, CTX)


def test_digests_bind_every_field() -> None:
    lock = expand_instance(LEVEL_SEED, 0, CTX, 2).public
    other = expand_instance(LEVEL_SEED, 1, CTX, 2).public
    variants = [lock] + [
        type(lock)(*(getattr(other if name == field else lock, name) for name in lock.__struct_fields__))
        for field in lock.__struct_fields__
    ]
    assert len({instance_digest(variant) for variant in variants}) == 5
