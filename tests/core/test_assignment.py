"""Who trains on what: as docs/protocol.md says it, and never twice on the same windows."""

from __future__ import annotations

from hashlib import sha256

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nostrain.core.bounds import manifest_problem
from nostrain.protocol.assignment import RoundTerms, assigned, assigned_ahead, assigned_slot
from nostrain.protocol.digests import ranked
from nostrain.protocol.manifest import RunManifest
from nostrain.units import Digest, Pubkey
from tests.core.actors import EXAMPLES

BYTES = st.binary(min_size=32, max_size=32)


def page_hash(tag: str, data: bytes) -> bytes:
    """H(tag, x) in the page's notation."""
    prefix = sha256(tag.encode()).digest()
    return sha256(prefix + prefix + data).digest()


@given(BYTES, st.integers(1, 100_000), BYTES, st.integers(1, 5_000))
def test_a_delayed_runs_work_is_what_the_page_says(base: bytes, number: int, worker: bytes, shards: int) -> None:
    found = assigned_ahead(Digest(base.hex()), number, Pubkey(worker.hex()), shards)
    basis = page_hash("nostrain/ahead", base + number.to_bytes(4, "big") + worker)
    assert found.shard == int.from_bytes(page_hash("nostrain/shards", basis)[:8], "big") % shards
    assert found.seed == page_hash("nostrain/windows", basis).hex()


@given(BYTES, st.lists(BYTES, min_size=1, max_size=6, unique=True), st.integers(0, 3))
def test_without_delay_slots_take_shards_one_after_the_other(state: bytes, keys: list[bytes], attempt: int) -> None:
    state_id, workers = Digest(state.hex()), tuple(Pubkey(key.hex()) for key in keys)
    terms = RoundTerms(7, state_id, workers, attempt)
    by_slot = [assigned(terms, worker, 100) for worker in ranked(state_id, workers)]
    assert by_slot == [assigned_slot(state_id, attempt, slot, 100) for slot in range(len(workers))]
    assert [one.shard for one in by_slot] == [(by_slot[0].shard + slot) % 100 for slot in range(len(workers))]


@given(BYTES, BYTES, st.lists(BYTES, min_size=2, max_size=6, unique=True))
def test_neither_a_worker_nor_a_round_repeats_anothers_windows(state: bytes, base: bytes, keys: list[bytes]) -> None:
    workers = tuple(Pubkey(key.hex()) for key in keys)
    rounds = [RoundTerms(number, Digest(state.hex()), workers, base=Digest(base.hex())) for number in (1, 2, 3)]
    seeds = [assigned(terms, worker, 10).seed for terms in rounds for worker in workers]
    assert len(set(seeds)) == len(seeds)
    assert [assigned(rounds[0], worker, 10) for worker in workers] == [
        assigned_ahead(Digest(base.hex()), 1, worker, 10) for worker in workers
    ]


@pytest.mark.parametrize(("delay", "problem"), [(0, None), (1, None), (2, "a delay of 2 rounds"), (-1, "a delay of -1 rounds")])
def test_a_manifest_may_ask_for_a_delay_of_one_round(delay: int, problem: str | None) -> None:
    manifest = msgspec.structs.replace(EXAMPLES.manifest, delay=delay)
    assert manifest_problem(manifest) == problem
    assert manifest.delayed == (delay == 1)
    assert msgspec.json.decode(msgspec.json.encode(manifest), type=RunManifest) == manifest


def test_a_manifest_without_delay_does_not_speak_of_it() -> None:
    """What was signed before there was one keeps its id."""
    assert b"delay" not in msgspec.json.encode(EXAMPLES.manifest)
    assert not EXAMPLES.manifest.delayed
