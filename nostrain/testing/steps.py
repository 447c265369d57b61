"""Crash points between every two steps of an effect: ports that count what is asked of them, and a process that dies at a chosen step.

As kill -9: what the world did before that step stays done, and the dead process does nothing more, not even in those of its tasks that trio has
not cancelled yet.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any, Final, Literal, NamedTuple, TypeVar, cast

from nostrain.errors import NostrainError

T = TypeVar("T")
FEEDS: Final = frozenset({"block_height", "funds", "holds", "inbox", "income", "meet", "subscribe"})
"""What only listens: to die there is to die before the next commit."""


class SimulatedCrash(Exception):
    """The process dies here. Whoever runs the node lets it fall through everything, drops the node and builds a new one from the journal."""


class When(Enum):
    """On which side of a commit the process dies: before, the batch is lost; after, it is kept and nobody was told."""

    BEFORE = "before"
    AFTER = "after"


class Step(NamedTuple):
    """A moment in a call on a port: before it, after it returned or failed, or, in a call that waits, when the world has been `told`."""

    port: str
    method: str
    at: Literal["before", "told", "after"]


class Death(NamedTuple):
    """Participant `name` dies when it takes `step` for the `nth` time (the first is 1), counted over all its lives.

    It stays away for `down_s`, or for as long as the plan says.
    """

    name: str
    step: Step
    nth: int
    down_s: float | None = None


def at_commit(name: str, nth: int, when: When) -> Death:
    """The death of `name` at its `nth` commit."""
    return Death(name, Step("journal", "commit", "before" if when is When.BEFORE else "after"), nth)


class Steps:
    """The steps of one participant. `taken` counts them, from its first start on; `down_s` is what the last death asked for."""

    def __init__(self, deaths: Iterable[Death] = ()) -> None:
        self.taken: Counter[Step] = Counter()
        self.down_s: float | None = None
        self._deaths = {(death.step, death.nth): death for death in deaths}
        self._dead = False

    def reach(self, step: Step) -> None:
        """Take a step. Raises SimulatedCrash at a death, and at every step of a dead process."""
        if self._dead:
            raise SimulatedCrash(f"dead, and yet at {step}")
        self.taken[step] += 1
        death = self._deaths.get((step, self.taken[step]))
        if death is not None:
            self._dead, self.down_s = True, death.down_s
            raise SimulatedCrash(f"at {step}, the {death.nth}. time")

    def revive(self) -> None:
        """A new process begins."""
        self._dead = False

    def over(self, name: str, port: T) -> T:
        """`port`, with a step before and after each of its calls."""
        return cast("T", _Stepped(name, port, self))


class _Stepped:
    """Any port: its methods are looked up when they are called."""

    def __init__(self, name: str, port: object, steps: Steps) -> None:
        self._name, self._port, self._steps = name, port, steps

    def __getattr__(self, method: str) -> Any:
        found = getattr(self._port, method)
        if not callable(found) or method in FEEDS:
            return found
        before, after = Step(self._name, method, "before"), Step(self._name, method, "after")
        return self._async(found, before, after) if inspect.iscoroutinefunction(found) else self._sync(found, before, after)

    def _async(self, call: Callable[..., Any], before: Step, after: Step) -> Callable[..., Any]:
        async def stepped(*args: object, **named: object) -> object:
            self._steps.reach(before)
            try:
                result = await call(*args, **named)
            except NostrainError:
                self._steps.reach(after)
                raise
            self._steps.reach(after)
            return result

        return stepped

    def _sync(self, call: Callable[..., Any], before: Step, after: Step) -> Callable[..., Any]:
        def stepped(*args: object, **named: object) -> object:
            self._steps.reach(before)
            try:
                result = call(*args, **named)
            except NostrainError:
                self._steps.reach(after)
                raise
            self._steps.reach(after)
            return result

        return stepped
