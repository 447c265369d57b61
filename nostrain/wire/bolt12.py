"""BOLT 12 strings as such: text ⇄ TLV records, their values, and the Merkle root that signatures are made over.

What the records of an offer or invoice mean is in `wire.bolt12_offer` and `wire.bolt12_invoice`. Stricter than the specification: lowercase
only, and no `+` inside, which is how lightningd writes them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from typing import Final

import msgspec
from coincurve import PublicKey

# pynostr's plain bech32 module, as in wire/bolt11.py; a BOLT 12 string has no checksum, so only its alphabet and bit conversion are used.
from pynostr import bech32

from nostrain.errors import LocalProtocolError, RemoteProtocolError
from nostrain.units import Msat
from nostrain.wire.tlv import Reader, bigsize, tlv

MAX_LENGTH: Final = 4_096
"""Characters; lightningd's invoices have about 700, and some 150 more for each hop of a blinded path."""
MAX_MSAT: Final = 21_000_000 * 10**11
MAX_PATHS: Final = 16
POINT_BYTES: Final = 33
CHAIN_BYTES: Final = 32

Records = Mapping[int, bytes]
"""Type → value, in ascending order of types."""


class BlindedPath(msgspec.Struct, frozen=True):
    """A path whose last node is the payee. `hops` are (blinded node id, data encrypted to it), hex; `first` a node id or a channel and side."""

    first: str
    path_key: str
    hops: tuple[tuple[str, str], ...]


def read_records_untrusted(prefix: str, text: str) -> Records:
    """The records of `<prefix>1…`. Raises RemoteProtocolError for anything but lowercase bech32 of ascending TLV records."""
    if len(text) > MAX_LENGTH:
        raise RemoteProtocolError(prefix, f"{len(text)} characters, more than {MAX_LENGTH}")
    body = text.removeprefix(f"{prefix}1")
    if body == text or not set(body) <= set(bech32.CHARSET):
        raise RemoteProtocolError(prefix, f"not {prefix}1 and lowercase bech32 characters")
    data = bech32.convertbits([bech32.CHARSET.index(char) for char in body], 5, 8, False)
    if not data:
        raise RemoteProtocolError(prefix, "nothing in it, or bits after its end")
    reader, records = Reader(bytes(data), prefix), dict[int, bytes]()
    last = -1
    while reader.more():
        kind = reader.peek_tlv()
        if kind <= last:
            raise reader.fault(f"record {kind} after record {last}")
        records[kind] = reader.tlv(kind).rest()
        last = kind
    return records


def write_records(prefix: str, records: Records) -> str:
    """The text of ascending records. Raises LocalProtocolError."""
    if list(records) != sorted(records):
        raise LocalProtocolError(f"{prefix}: records out of order")
    words = bech32.convertbits(b"".join(tlv(kind, value) for kind, value in records.items()), 8, 5)
    return f"{prefix}1{''.join(bech32.CHARSET[word] for word in words)}"


def merkle_root(records: Records) -> bytes:
    """The root over all records but signatures (types 240 to 1000); every leaf is paired with a nonce that hides its neighbours."""
    leaves = [(kind, tlv(kind, value)) for kind, value in records.items() if not 240 <= kind <= 1000]
    nonce_tag = b"LnNonce" + leaves[0][1]
    nodes = [_branch(_tagged(b"LnLeaf", leaf), _tagged(nonce_tag, bigsize(kind))) for kind, leaf in leaves]
    while len(nodes) > 1:
        pairs = [nodes[at : at + 2] for at in range(0, len(nodes), 2)]
        nodes = [_branch(*pair) if len(pair) == 2 else pair[0] for pair in pairs]
    return nodes[0]


def signature_hash(message: str, root: bytes) -> bytes:
    """What the `signature` of a message (`invoice`, `invoice_request`) signs: 32 bytes."""
    return _tagged(f"lightning{message}signature".encode(), root)


def _tagged(tag: bytes, data: bytes) -> bytes:
    digest = hashlib.sha256(tag).digest()
    return hashlib.sha256(digest + digest + data).digest()


def _branch(one: bytes, other: bytes) -> bytes:
    return _tagged(b"LnBranch", min(one, other) + max(one, other))


def write_integer(value: int) -> bytes:
    """A truncated big-endian integer (`tu64`): no leading zeros."""
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


class Values:
    """Typed access to records. Every method raises RemoteProtocolError naming the string and the record."""

    def __init__(self, records: Records, what: str) -> None:
        self._records, self._what = records, what

    def fault(self, reason: str) -> RemoteProtocolError:
        """The error to raise for something wrong here."""
        return RemoteProtocolError(self._what, reason)

    def check_types(self, known: Collection[int], ranges: Collection[range]) -> None:
        """Refuse records outside of `ranges`, and even ones that are not `known`: it's OK to be odd."""
        for kind in self._records:
            if not any(kind in allowed for allowed in ranges):
                raise self.fault(f"record {kind} has no place in it")
            if kind % 2 == 0 and kind not in known:
                raise self.fault(f"asks for the unknown record {kind}")

    def has(self, kind: int) -> bool:
        """Whether there is such a record."""
        return kind in self._records

    def raw(self, kind: int, size: int | None = None) -> bytes:
        """The bytes of a record that must be there, of exactly `size` if given."""
        value = self._records.get(kind)
        if value is None:
            raise self.fault(f"no record {kind}")
        if size is not None and len(value) != size:
            raise self.fault(f"record {kind} has {len(value)} bytes, not {size}")
        return value

    def integer(self, kind: int, size: int = 8) -> int:
        """A truncated integer of at most `size` bytes."""
        value = self.raw(kind)
        if len(value) > size or value[:1] == b"\x00":
            raise self.fault(f"the number in record {kind} is not minimal, or absurd")
        return int.from_bytes(value, "big")

    def amount(self, kind: int) -> Msat:
        """A positive amount."""
        value = self.integer(kind)
        if not 0 < value <= MAX_MSAT:
            raise self.fault(f"an amount of {value} msat")
        return Msat(value)

    def text(self, kind: int) -> str:
        """UTF-8."""
        try:
            return self.raw(kind).decode()
        except UnicodeDecodeError:
            raise self.fault(f"record {kind} is not UTF-8") from None

    def point(self, kind: int) -> str:
        """A compressed public key, hex."""
        return read_point(Reader(self.raw(kind, POINT_BYTES), self._what))

    def features(self, kind: int, known: Collection[int] = ()) -> None:
        """Refuse compulsory features that are not `known`."""
        bits = int.from_bytes(self._records.get(kind, b""), "big")
        unknown = [bit for bit in range(0, bits.bit_length(), 2) if bits >> bit & 1 and bit not in known]
        if unknown:
            raise self.fault(f"asks for the unknown features {unknown[:8]}")

    def chains(self, kind: int) -> tuple[str, ...]:
        """Genesis block hashes in wire order, hex; one at least."""
        value = self.raw(kind)
        if not value or len(value) % CHAIN_BYTES:
            raise self.fault(f"record {kind} is not a list of chains")
        return tuple(value[at : at + CHAIN_BYTES].hex() for at in range(0, len(value), CHAIN_BYTES))

    def paths(self, kind: int) -> tuple[BlindedPath, ...]:
        """Blinded paths; one at least, each with a hop at least."""
        reader = Reader(self.raw(kind), self._what)
        paths: list[BlindedPath] = []
        while reader.more():
            if len(paths) == MAX_PATHS:
                raise self.fault(f"more than {MAX_PATHS} paths")
            paths.append(_read_path(reader))
        if not paths:
            raise self.fault("no path")
        return tuple(paths)


def read_point(reader: Reader) -> str:
    """The next 33 bytes, which must be a point on the curve, hex."""
    data = reader.take(POINT_BYTES)
    try:
        PublicKey(data)
    except ValueError:
        raise reader.fault("a public key that is not on the curve") from None
    return data.hex()


def _read_path(reader: Reader) -> BlindedPath:
    side = reader.integer(1)
    first = bytes([side])
    if side in (0, 1):
        first += reader.take(8)
    else:
        first += reader.take(POINT_BYTES - 1)
        read_point(Reader(first, "blinded path"))
    path_key, count = read_point(reader), reader.integer(1)
    if count == 0:
        raise reader.fault("a path without hops")
    hops = []
    for _ in range(count):
        node = read_point(reader)
        hops.append((node, reader.take(reader.integer(2)).hex()))
    return BlindedPath(first.hex(), path_key, tuple(hops))


def write_path(path: BlindedPath) -> bytes:
    """The bytes of a blinded path."""
    hops = b"".join(bytes.fromhex(node) + (len(data) // 2).to_bytes(2, "big") + bytes.fromhex(data) for node, data in path.hops)
    return bytes.fromhex(path.first) + bytes.fromhex(path.path_key) + bytes([len(path.hops)]) + hops
