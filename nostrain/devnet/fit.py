"""Whether a devnet fits this machine: said when its run is known, before anybody trains."""

from __future__ import annotations

import os
from collections.abc import Collection

from nostrain.devnet.layout import Role
from nostrain.protocol.footprint import as_memory, evaluation_needs, needed_bytes
from nostrain.protocol.manifest import RunManifest
from nostrain.protocol.tensors import parameter_count


def memory_lines(manifest: RunManifest, roles: Collection[Role]) -> tuple[str, str]:
    """What the engines of `roles` need at least, each and together, and what there is: they share one machine, and each knows of itself alone."""
    train, evaluate = needed_bytes(manifest.model, manifest.training)[0], evaluation_needs(manifest)[0]
    workers, validators = (sum(role == wanted for role in roles) for wanted in ("worker", "validator"))
    together, installed = workers * train + validators * evaluate, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    short = "" if together <= installed else "! "
    return (
        f"{parameter_count(manifest.model):,} parameters: a worker needs {as_memory(train)}, a validator {as_memory(evaluate)}",
        f"{short}all {workers + validators} engines need {as_memory(together)}, this machine has {as_memory(installed)}",
    )
