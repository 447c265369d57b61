"""Hash chains: a link proves itself, and only at its own index."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nostrain.crypto.chain import advance, chain_link, verify_link

SEED = bytes(range(32))


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40))
def test_a_link_verifies_at_its_index_alone(length: int, index: int, other: int) -> None:
    end = advance(SEED, length)
    if index > length:
        with pytest.raises(ValueError, match=f"link {index}"):
            chain_link(SEED, length, index)
        return
    link = chain_link(SEED, length, index)
    assert verify_link(link, other, end) == (other == index)


def test_the_chain_is_plain_sha256() -> None:
    assert advance(SEED, 2) == sha256(sha256(SEED).digest()).digest()
    assert advance(SEED, 0) == SEED


def test_malformed_links_do_not_verify() -> None:
    assert not verify_link(SEED + b"\0", 0, SEED + b"\0")
    assert not verify_link(b"", 1, sha256(b"").digest())
    assert not verify_link(SEED, -1, SEED)
    with pytest.raises(ValueError, match="32 bytes"):
        advance(b"", 1)
