"""A strict reader and the writers for Lightning-style binary messages (BOLT 1: BigSize, TLV; integers are big-endian)."""

from __future__ import annotations

from nostrain.errors import RemoteProtocolError


class Reader:
    """Reads `data` from front to back. Every method raises RemoteProtocolError naming `what` when the bytes are not what it reads."""

    def __init__(self, data: bytes, what: str) -> None:
        self._data, self._what, self._at = data, what, 0

    def fault(self, reason: str) -> RemoteProtocolError:
        """The error to raise for something wrong here."""
        return RemoteProtocolError(self._what, reason)

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        if size > len(self._data) - self._at:
            raise self.fault(f"{size} bytes promised at offset {self._at}, {len(self._data) - self._at} there")
        self._at += size
        return self._data[self._at - size : self._at]

    def integer(self, size: int, *, signed: bool = False) -> int:
        """A big-endian integer of `size` bytes."""
        return int.from_bytes(self.take(size), "big", signed=signed)

    def bigsize(self) -> int:
        """A BOLT 1 BigSize, only in its shortest encoding."""
        first = self.integer(1)
        if first < 0xFD:
            return first
        size = {0xFD: 2, 0xFE: 4, 0xFF: 8}[first]
        value = self.integer(size)
        if value < (0xFD if size == 2 else 1 << 4 * size):
            raise self.fault(f"BigSize {value} is not in its shortest encoding")
        return value

    def text(self, max_bytes: int) -> str:
        """A BigSize length and as many bytes of UTF-8."""
        size = self.bigsize()
        if size > max_bytes:
            raise self.fault(f"a string of {size} bytes, at most {max_bytes} allowed")
        try:
            return self.take(size).decode()
        except UnicodeDecodeError:
            raise self.fault("a string is not UTF-8") from None

    def tlv(self, kind: int) -> Reader:
        """The value of the TLV that comes next, whose type must be `kind`."""
        if (found := self.bigsize()) != kind:
            raise self.fault(f"TLV type {found} where {kind} is expected")
        return Reader(self.take(self.bigsize()), self._what)

    def peek_tlv(self) -> int:
        """Type of the TLV that comes next."""
        at = self._at
        kind = self.bigsize()
        self._at = at
        return kind

    def rest(self) -> bytes:
        """Everything that has not been read yet."""
        return self.take(len(self._data) - self._at)

    def more(self) -> bool:
        """Whether bytes are left."""
        return self._at < len(self._data)

    def end(self) -> None:
        """Insist that everything was read."""
        if self.more():
            raise self.fault(f"{len(self._data) - self._at} bytes too many")


def bigsize(value: int) -> bytes:
    """The shortest BigSize of 0 ≤ value < 2^64."""
    if value < 0xFD:
        return value.to_bytes(1, "big")
    for prefix, size in ((b"\xfd", 2), (b"\xfe", 4)):
        if value < 1 << 8 * size:
            return prefix + value.to_bytes(size, "big")
    return b"\xff" + value.to_bytes(8, "big")


def text(value: str) -> bytes:
    """BigSize length and UTF-8."""
    data = value.encode()
    return bigsize(len(data)) + data


def tlv(kind: int, value: bytes) -> bytes:
    """Type, length, value."""
    return bigsize(kind) + bigsize(len(value)) + value
