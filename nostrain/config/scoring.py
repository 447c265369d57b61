"""[coordinator.run.scoring]: how much validators read in a round; their share of a round's time."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from nostrain.protocol.manifest import ScoringSpec

MOST_TOKENS: Final = 65_536
"""A verdict has room for the losses of 32 batches: so many tokens fit, whatever the model's context from 64 on."""
Tokens = Annotated[int, Meta(ge=1_024, le=MOST_TOKENS)]


class ScoringConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Tokens that a validator measures each delta on, fresh ones and assigned ones, and those of its confirmation (`protocol.manifest.ScoringSpec`)."""

    unassigned_tokens: Tokens = ScoringSpec().unassigned_tokens
    assigned_tokens: Tokens = ScoringSpec().assigned_tokens
    validation_tokens: Tokens = ScoringSpec().validation_tokens

    def spec(self) -> ScoringSpec:
        """As the run manifest says it."""
        return ScoringSpec(**msgspec.structs.asdict(self))
