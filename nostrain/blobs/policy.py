"""What a Blossom server takes, and from whom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from nostrain.units import Digest, Pubkey


class UploadPolicy(Protocol):
    """Decides who may upload what. Injected: only the daemon knows who is enrolled and what was committed to."""

    def allow(self, pubkey: Pubkey, digest: Digest, size: int) -> str | None:
        """None when `pubkey` may upload `size` bytes as `digest`, else the reason that it is told (403)."""
        ...


@dataclass(frozen=True, slots=True)
class BlobLimits:
    """Bounds in bytes that hold for every key that the policy allows."""

    max_blob: int = 4 << 30
    """The largest blob (413)."""
    quota: int = 64 << 30
    """The sum of what one key may have stored here (429)."""
