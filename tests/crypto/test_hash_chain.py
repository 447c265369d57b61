"""Hash chains: a link proves itself, and only at its own index."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nostrain.crypto.chain import advance, chain_link

SEED = bytes(range(32))


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40))
def test_a_link_reaches_the_end_from_its_index_alone(length: int, index: int, other: int) -> None:
    end = advance(SEED, length)
    if index > length:
        with pytest.raises(ValueError, match=f"link {index}"):
            chain_link(SEED, length, index)
        return
    link = chain_link(SEED, length, index)
    assert (advance(link, other) == end) == (other == index)


def test_the_chain_is_plain_sha256() -> None:
    assert advance(SEED, 2) == sha256(sha256(SEED).digest()).digest()
    assert advance(SEED, 0) == SEED


@pytest.mark.parametrize(("link", "steps"), [(b"", 1), (SEED + b"\0", 0), (SEED, -1)])
def test_malformed_links_are_refused(link: bytes, steps: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        advance(link, steps)
