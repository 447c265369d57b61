"""Engine jobs and entropy."""

from __future__ import annotations

from nostrain.core.effects import Compute, Computed, Draw, Drawn, Failed, Outcome
from nostrain.daemon.ports import Ports
from nostrain.errors import LocalProtocolError


async def run(effect: Compute | Draw, ports: Ports) -> Outcome:
    """Raises Unavailable when the engine died; the job is then run again.

    A job that the engine refuses is `Failed`, not a crash: what a job contains (shapes, shards, checkpoint) comes from other people's manifests.
    """
    if isinstance(effect, Draw):
        return Drawn(ports.entropy.draw(effect.size).hex())
    try:
        return Computed(await ports.engine.run(effect.job))
    except LocalProtocolError as error:
        return Failed(f"the engine refuses the job: {error}")
