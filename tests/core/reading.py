"""What a test reads from the rows of a node that follows the run of the examples."""

from __future__ import annotations

from nostrain.core.rows import NodeState, Round, Run
from tests.core.actors import EXAMPLES


class Readable:
    """Whoever has a `state`."""

    state: NodeState

    @property
    def run(self) -> Run:
        row = self.state.rows["run"]
        assert isinstance(row, Run)
        return row

    @property
    def round(self) -> Round:
        row = self.state.rows[f"round/{EXAMPLES.round_id}"]
        assert isinstance(row, Round)
        return row
