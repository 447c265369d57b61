"""lightningd's real client in a process that dies between its calls: before one is sent, when it is sent and not yet answered, after its answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TypeVar

import pytest
import trio

from nostrain.errors import OutcomeUnknown, Unavailable
from nostrain.lightning import node
from nostrain.lightning.client import ClnLightning
from nostrain.lightning.rpc import ClnRpc
from nostrain.testing.steps import Death, SimulatedCrash, Step, Steps

T = TypeVar("T")
BREATH_S = 0.01


class DyingRpc(ClnRpc):
    """Takes three steps for each call. Dying closes the connection, as the kernel does for a process that was killed."""

    def __init__(self, path: Path, steps: Steps) -> None:
        super().__init__(path)
        self._steps = steps

    async def call(self, method: str, params: Mapping[str, object], reply: type[T], *, timeout_s: float | None) -> T:
        """As the real one."""
        self._steps.reach(Step("rpc", method, "before"))
        result = await super().call(method, params, reply, timeout_s=timeout_s)
        self._steps.reach(Step("rpc", method, "after"))
        return result

    async def _receive(self, stream: trio.SocketStream, method: str) -> bytes:
        self._steps.reach(Step("rpc", method, "told"))
        return await super()._receive(stream, method)


class Mortal:
    """One participant: what it asks of its node it asks again after every death and every error, as a daemon does with what its journal lists."""

    def __init__(self, socket: Path, *deaths: Death) -> None:
        self.socket, self.steps, self.deaths = socket, Steps(deaths), 0

    async def insist(self, ask: Callable[[ClnLightning], Awaitable[T]]) -> T:
        """Ask until there is an outcome; each life has a client of its own, which remembers nothing."""
        while True:
            self.steps.revive()
            try:
                return await ask(self.lightning())
            except SimulatedCrash:
                self.deaths += 1
            except (Unavailable, OutcomeUnknown):
                await trio.sleep(BREATH_S)

    def lightning(self) -> ClnLightning:
        """A new process's client."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(node, "ClnRpc", lambda path: DyingRpc(path, self.steps))
            return ClnLightning(self.socket, hold_poll_s=BREATH_S)


def every_death(steps: Steps, name: str) -> list[Death]:
    """Each step of each call, each time that it was taken."""
    return [Death(name, step, nth) for step, count in sorted(steps.taken.items()) for nth in range(1, count + 1)]
