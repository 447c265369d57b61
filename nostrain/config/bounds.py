"""Numbers that more than one table of the configuration is bound by."""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta

Seconds = Annotated[int, Meta(ge=1, le=86_400)]
Positive = Annotated[int, Meta(ge=1)]
MAX_SAT: Final = 1 << 40
"""An amount that nobody means: about 11,000 bitcoin."""
