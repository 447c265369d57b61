"""Value checks by annotation: the first field that cannot be is named, wherever it lies."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nostrain.errors import RemoteProtocolError
from nostrain.protocol.limits import MAX_BLOB_BYTES, MAX_URL, MAX_URLS
from nostrain.protocol.manifest import BlobRef
from nostrain.units import BlockHeight, Digest, EventId, Msat, Ppm, Pubkey, UnixTime
from nostrain.wire.check import MAX_INTEGER, MAX_ITEMS, MAX_TEXT, MAX_TIME, MAX_WORDS, check_values

HEX = "0f" * 32


class Leaf(msgspec.Struct, frozen=True):
    """One field of every sort."""

    digest: Digest = Digest(HEX)
    author: Pubkey = Pubkey(HEX)
    event: EventId | None = None
    amount_msat: Msat = Msat(0)
    height: BlockHeight = BlockHeight(0)
    commit_by: UnixTime = UnixTime(0)
    share: Ppm = Ppm(0)
    count: int = 0
    name: str = ""
    note: str | None = None
    mode: Literal["a", "b"] = "a"


class Tree(msgspec.Struct, frozen=True):
    """Leaves in every arrangement that the messages use."""

    leaf: Leaf = Leaf()
    leaves: tuple[Leaf, ...] = ()
    digests: tuple[tuple[Digest, ...], ...] = ()
    pairs: tuple[tuple[int, str], ...] = ()
    either: Leaf | None = None
    blob: BlobRef | None = None


printable = st.text(st.characters(exclude_categories=["C", "Z"], include_characters=" "), max_size=8)


def refused(value: msgspec.Struct, reason: str) -> None:
    with pytest.raises(RemoteProtocolError, match=reason) as raised:
        check_values(value)
    assert raised.value.what == "event content"


@given(
    st.builds(
        Leaf,
        event=st.sampled_from([None, EventId(HEX)]),
        amount_msat=st.integers(0, MAX_INTEGER - 1).map(Msat),
        height=st.integers(0, MAX_INTEGER - 1).map(BlockHeight),
        commit_by=st.integers(0, MAX_TIME - 1).map(UnixTime),
        share=st.integers(1 - MAX_INTEGER, MAX_INTEGER - 1).map(Ppm),
        count=st.integers(1 - MAX_INTEGER, MAX_INTEGER - 1),
        name=printable,
        note=st.none() | printable,
    )
)
def test_what_is_within_bounds_passes(leaf: Leaf) -> None:
    tree = Tree(leaf=leaf, leaves=(leaf,), digests=((leaf.digest,), ()), pairs=((leaf.count, leaf.name),), either=leaf)
    check_values(tree)
    assert tree.either == leaf


@pytest.mark.parametrize(
    "text", ["", "0f" * 31, "0f" * 33, "0F" * 32, "0g" * 32, " " + "0f" * 32, "0f" * 32 + "\n", "０" * 64, "0f" * 31 + "0\u0665"]
)
@pytest.mark.parametrize("field", ["digest", "author", "event"])
def test_only_64_lowercase_hex_digits_are_a_digest(field: str, text: str) -> None:
    refused(Leaf(**{field: text}), f"^event content: {field} is not 32 bytes of lowercase hex$")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("amount_msat", -1, "amount_msat is -1"),
        ("amount_msat", MAX_INTEGER, f"amount_msat is {MAX_INTEGER}"),
        ("height", -1, "height is -1"),
        ("commit_by", -1, "commit_by is -1"),
        ("commit_by", MAX_TIME, f"commit_by is {MAX_TIME}"),
        ("count", MAX_INTEGER, "count does not fit into 63 bits"),
        ("count", -MAX_INTEGER, "count does not fit into 63 bits"),
        ("count", 10**4000, "count does not fit into 63 bits"),
        ("share", MAX_INTEGER, "share does not fit into 63 bits"),
        ("name", "x" * (MAX_WORDS + 1), f"name has {MAX_WORDS + 1} characters"),
        ("note", "x" * (MAX_TEXT + 1), f"note has {MAX_TEXT + 1} characters"),
        *(
            ("note", f"a{text}b", "note has characters that do not print")
            for text in ("\n", "\x1b", "\x7f", "\u2028", "\u202e", "\u200b", "\xa0")
        ),
    ],
)
def test_bounds(field: str, value: Any, reason: str) -> None:
    refused(Leaf(**{field: value}), f"^event content: {reason}$")
    check_values(Leaf(**{field: type(value)()}))


BAD = Leaf(digest=Digest("?"))


@pytest.mark.parametrize(
    ("tree", "path"),
    [
        (Tree(leaf=BAD), "leaf.digest"),
        (Tree(leaves=(Leaf(), BAD)), r"leaves\[1\].digest"),
        (Tree(digests=((), (Digest(HEX), Digest("?")))), r"digests\[1\]\[1\]"),
        (Tree(pairs=((0, ""), (MAX_INTEGER, ""))), r"pairs\[1\]\[0\]"),
        (Tree(pairs=((0, "x" * (MAX_TEXT + 1)),)), r"pairs\[0\]\[1\]"),
        (Tree(either=BAD), "either.digest"),
    ],
)
def test_the_field_is_named_wherever_it_lies(tree: Tree, path: str) -> None:
    refused(tree, f"^event content: {path} ")


def test_a_list_longer_than_any_honest_one_is_refused() -> None:
    check_values(Tree(digests=((Digest(HEX),) * MAX_ITEMS,)))
    refused(Tree(digests=((Digest(HEX),) * (MAX_ITEMS + 1),)), rf"digests\[0\] has {MAX_ITEMS + 1} items")


def test_the_first_fault_is_the_one_that_is_told() -> None:
    refused(Leaf(digest=Digest("?"), author=Pubkey("?"), count=MAX_INTEGER), "^event content: digest ")


@pytest.mark.parametrize(
    ("blob", "reason"),
    [
        (BlobRef(Digest("?"), 1), "blob.sha256 is not 32 bytes"),
        (BlobRef(Digest(HEX), 0), "blob.size is 0"),
        (BlobRef(Digest(HEX), -1), "blob.size is -1"),
        (BlobRef(Digest(HEX), MAX_BLOB_BYTES + 1), f"blob.size is {MAX_BLOB_BYTES + 1}"),
        (BlobRef(Digest(HEX), 1, ("u",) * (MAX_URLS + 1)), f"blob.urls are more than {MAX_URLS}"),
        (BlobRef(Digest(HEX), 1, ("u" * (MAX_URL + 1),)), "blob.urls are"),
        (BlobRef(Digest(HEX), 1, ("http://h/\n",)), "blob.urls are"),
    ],
)
def test_a_blob_is_one_that_could_be(blob: BlobRef, reason: str) -> None:
    refused(Tree(blob=blob), f"^event content: {reason}")
    check_values(Tree(blob=BlobRef(Digest(HEX), MAX_BLOB_BYTES, ("u" * MAX_URL,) * MAX_URLS)))
