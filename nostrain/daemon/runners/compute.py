"""Engine jobs and entropy."""

from __future__ import annotations

from nostrain.core.effects import Compute, Computed, Draw, Drawn, Outcome
from nostrain.daemon.ports import Ports


async def run(effect: Compute | Draw, ports: Ports) -> Outcome:
    """Raises Unavailable when the engine died; the job is then run again."""
    if isinstance(effect, Draw):
        return Drawn(ports.entropy.draw(effect.size).hex())
    return Computed(await ports.engine.run(effect.job))
