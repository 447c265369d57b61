"""BigSize and the strict reader (BOLT 1)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nostrain.errors import RemoteProtocolError
from nostrain.wire.tlv import Reader, bigsize, text, tlv

# BOLT 1, appendix A.
VECTORS = [
    (0, "00"),
    (252, "fc"),
    (253, "fd00fd"),
    (65535, "fdffff"),
    (65536, "fe00010000"),
    (4294967295, "feffffffff"),
    (4294967296, "ff0000000100000000"),
    (18446744073709551615, "ffffffffffffffffff"),
]
REFUSED = ["fd00fc", "fe0000ffff", "ff00000000ffffffff", "fd00", "feffff", "ffffffffff", "", "fd", "fe", "ff"]


@pytest.mark.parametrize(("value", "encoded"), VECTORS)
def test_bigsize_vectors(value: int, encoded: str) -> None:
    assert bigsize(value).hex() == encoded
    reader = Reader(bytes.fromhex(encoded), "test")
    assert reader.bigsize() == value
    reader.end()


@pytest.mark.parametrize("encoded", REFUSED)
def test_longer_and_cut_off_bigsizes_are_refused(encoded: str) -> None:
    with pytest.raises(RemoteProtocolError, match="test: "):
        Reader(bytes.fromhex(encoded), "test").bigsize()


@given(st.binary(max_size=300), st.text(max_size=300), st.integers(0, 2**64 - 1))
def test_what_is_written_is_read(value: bytes, string: str, kind: int) -> None:
    reader = Reader(tlv(kind, value) + text(string), "test")
    assert reader.peek_tlv() == kind
    assert reader.tlv(kind).rest() == value
    assert reader.text(1200) == string
    assert not reader.more()
    reader.end()


def test_the_reader_says_what_is_wrong() -> None:
    with pytest.raises(RemoteProtocolError, match="5 bytes promised at offset 1, 2 there"):
        Reader(b"\x05ab", "test").text(9)
    with pytest.raises(RemoteProtocolError, match="a string of 3 bytes, at most 2 allowed"):
        Reader(b"\x03abc", "test").text(2)
    with pytest.raises(RemoteProtocolError, match="not UTF-8"):
        Reader(b"\x02\xff\xff", "test").text(9)
    with pytest.raises(RemoteProtocolError, match="TLV type 1 where 2 is expected"):
        Reader(b"\x01\x00", "test").tlv(2)
    with pytest.raises(RemoteProtocolError, match="1 bytes too many"):
        Reader(b"\x00", "test").end()
    with pytest.raises(RemoteProtocolError, match="promised"):
        Reader(b"\x01\xff" + b"\xff" * 8, "test").tlv(1)


def test_integers_are_big_endian_and_signed_on_request() -> None:
    assert Reader(b"\x01\x02", "test").integer(2) == 258
    assert Reader(b"\xff\xfe", "test").integer(2, signed=True) == -2
