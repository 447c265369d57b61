"""What the workers of a round train on, as everyone who follows the chain finds it."""

from __future__ import annotations

from nostrain.core.rows import Round
from nostrain.protocol import assignment
from nostrain.protocol.assignment import Assigned, RoundTerms
from nostrain.protocol.dataset import DatasetManifest
from nostrain.protocol.manifest import BlobRef
from nostrain.units import Pubkey


def assigned(round_: Round, dataset: DatasetManifest, worker: Pubkey) -> Assigned:
    """Shard and windows of a listed worker."""
    said = round_.announcement
    terms = RoundTerms(said.round, said.state_id, said.workers, round_.attempt, round_.base)
    return assignment.assigned(terms, worker, len(dataset.shards))


def assigned_shard(round_: Round, dataset: DatasetManifest, worker: Pubkey) -> BlobRef:
    """The shard that a listed worker trains on."""
    return dataset.shards[assigned(round_, dataset, worker).shard]


def taken_shards(round_: Round, dataset: DatasetManifest) -> set[int]:
    """Indices of all shards that somebody was assigned in the round."""
    return {assigned(round_, dataset, worker).shard for worker in round_.announcement.workers}
