"""The bundle of ports that a node runs on: real adapters when live, fakes in simulations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import trio

from nostrain.ports.blobs import Blobs
from nostrain.ports.clock import Clock
from nostrain.ports.engine import Engine
from nostrain.ports.entropy import Entropy
from nostrain.ports.journal import Journal
from nostrain.ports.lightning import Lightning
from nostrain.ports.mail import Mail
from nostrain.ports.relays import Relays
from nostrain.ports.signer import Oracle, Signer
from nostrain.ports.tickets import TicketBuyer

T = TypeVar("T")


async def in_thread(call: Callable[[], T]) -> T:
    """Run blocking work in a worker thread; not cancellable, so that what it began it ends."""
    return await trio.to_thread.run_sync(call)


async def inline(call: Callable[[], T]) -> T:
    """Run blocking work here: simulations have no threads, so that the virtual clock cannot jump past it."""
    await trio.lowlevel.checkpoint()
    return call()


@dataclass(frozen=True)
class Ports:
    """Everything outside the machines. `mail`, `lightning` and `tickets` are None in a node that takes no part in paid runs."""

    clock: Clock
    entropy: Entropy
    signer: Signer
    oracle: Oracle | None
    relays: Relays
    blobs: Blobs
    engine: Engine
    journal: Journal
    mail: Mail | None = None
    lightning: Lightning | None = None
    tickets: TicketBuyer | None = None
    threads: bool = True

    async def offload(self, call: Callable[[], T]) -> T:
        """Run blocking work in a thread when live, inline in simulations."""
        return await (in_thread(call) if self.threads else inline(call))
