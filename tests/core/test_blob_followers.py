"""A blob server that follows a run without a copy of its model: it fetches and computes nothing, and learns from what is said what may go."""

from __future__ import annotations

import msgspec
import pytest

from nostrain.core.effects import Compute, Discard, Effect, Fetch, FetchDataset, Sign
from nostrain.core.inputs import Boot
from nostrain.core.node import outstanding
from nostrain.core.pruning import KEEP_ROUNDS
from nostrain.core.rows import NodeState, Round
from nostrain.protocol.messages import Reveal
from tests.core.actors import EXAMPLES, MESSAGES, ROUND, Node
from tests.core.long_run import rounds
from tests.docs.examples import COORDINATOR, Party

REVEALED = {message.body.blob.sha256 for message in MESSAGES.values() if isinstance(message.body, Reveal)}
EXPENSIVE: tuple[type[Effect], ...] = (Compute, Fetch, FetchDataset, Sign)


def follower(archive: bool) -> Node:
    """A blob server that has heard the first round."""
    node = Node(Party("files"))
    node.identity = msgspec.structs.replace(node.identity, join_coordinator=COORDINATOR.pubkey, archive=archive, replicates=False)
    node.take(Boot(node.identity))
    node.hear(ROUND)
    run = msgspec.structs.replace(node.run, manifest=msgspec.structs.replace(EXAMPLES.manifest, rounds=100))
    node.state = NodeState({**node.state.rows, "run": run})
    return node


@pytest.mark.parametrize("archive", [False, True])
def test_it_asks_for_nothing_but_the_removal_of_what_is_over(archive: bool) -> None:
    node = follower(archive)
    assert not outstanding(node.state)
    node.hear(rounds(KEEP_ROUNDS))
    asked = [effect for effect in outstanding(node.state) if isinstance(effect, Discard)]
    assert [effect.last for effect in asked] == [1]
    assert set(asked[0].blobs) & REVEALED == (set() if archive else REVEALED)
    assert not [effect for effect in outstanding(node.state) if isinstance(effect, EXPENSIVE)]
    kept = {row.announcement.round for row in node.state.rows.values() if isinstance(row, Round)}
    assert kept == set(range(2, KEEP_ROUNDS + 2))


def test_it_knows_who_may_upload_in_the_open_round() -> None:
    node = follower(archive=True)
    opened, _ = rounds(1)
    node.hear([opened])
    assert node.run.open == opened.id
    assert node.run.manifest.dataset.sha256 == EXAMPLES.manifest.dataset.sha256
    assert not node.has("replica")
