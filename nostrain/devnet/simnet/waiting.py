"""lightningd's `wait`: how many things were created, changed and deleted, and a call that returns when there are more.

Source: Core Lightning `lightningd/wait.c` and `doc/schemas/wait.json` (release 26.06); the subsystems are those whose things exist here.
"""

from __future__ import annotations

from typing import Any, Final

import trio

from nostrain.devnet.simnet.methods import NodeMethods
from nostrain.devnet.simnet.params import Wait
from nostrain.devnet.simnet.rpc import INVALID_PARAMS, Json, Method, RpcFailure

SUBSYSTEMS: Final = ("invoices", "sendpays")
INDEXES: Final = ("created", "updated", "deleted")


class WaitMethods(NodeMethods):
    """On one node."""

    def table(self) -> dict[str, Method]:
        """The method by name."""
        return {"wait": Method(Wait, self.wait)}

    async def wait(self, asked: Wait) -> Json:
        """Return once the index is as high; what is told about the thing is of the change that made it so."""
        if asked.subsystem not in SUBSYSTEMS:
            raise RpcFailure(INVALID_PARAMS, f"subsystem: unknown subsystem: invalid token '{asked.subsystem}'")
        if asked.indexname not in INDEXES:
            raise RpcFailure(INVALID_PARAMS, f"indexname: unknown index: invalid token '{asked.indexname}'")
        indexes, at = self.node.indexes, (asked.subsystem, asked.indexname)
        reply: dict[str, Any] = {"subsystem": asked.subsystem}
        waited = False
        while indexes.counts[at] < asked.nextvalue:
            waited = True
            changed: trio.Event = indexes.changed
            await changed.wait()
        if waited:
            reply[asked.subsystem] = indexes.last[at]
        return reply | {asked.indexname: indexes.counts[at]}
