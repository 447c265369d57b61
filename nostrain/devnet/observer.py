"""What the supervisor sees: a passive node without roles that reads the relay like any stranger, verifies every event and follows the run.

Digests, scores and losses in the report come from here, that is from signed events; nothing is asked of the daemons themselves.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, cast

from nostrain.core import node
from nostrain.core.identity import Identity
from nostrain.core.inputs import Boot, Received
from nostrain.core.rounds.round import phase
from nostrain.core.rounds.scoring import pinned
from nostrain.core.rows import NodeState, Round, Run
from nostrain.core.tables import RoundPhase
from nostrain.devnet.fit import memory_lines
from nostrain.devnet.layout import Role
from nostrain.errors import RemoteProtocolError
from nostrain.protocol.event import Event
from nostrain.protocol.manifest import RunManifest
from nostrain.protocol.messages import Confirmation, Message
from nostrain.units import Pubkey, UnixTime
from nostrain.wire.messages import read_message_untrusted

WATCHER = Pubkey("00" * 32)

PHASES: Final = {
    "committed": "train",
    "acknowledged": "acknowledge",
    "revealed": "reveal",
    "scored": "validate",
    "attested": "attest",
    "closed": "aggregate",
    "confirmed": "confirm",
}
"""The milestone that ends each phase of a round, in order, and the phase's name in lines and report. The first begins at `announced`."""


@dataclass
class Watched:
    """One round as it went by. `seen` maps milestones to seconds on the observer's own clock."""

    number: int
    round: Round
    seen: dict[str, float] = field(default_factory=dict)
    confirmations: dict[Pubkey, Confirmation] = field(default_factory=dict)


class Observer:
    """Feed it events; it calls `tell` with a line whenever something worth a line happened."""

    def __init__(self, tell: Callable[[str], None], names: dict[Pubkey, str], silent: frozenset[Pubkey] = frozenset()) -> None:
        """`silent` are known to say nothing in the end: nobody waits for their confirmations."""
        identity = Identity(pubkey=WATCHER, name="observer", roles=(), work_dir="")
        self.state: NodeState = node.step(NodeState(), Boot(identity), self._now()).state
        self.rounds: dict[int, Watched] = {}
        self.initial: dict[Pubkey, Confirmation] = {}
        self.names, self.silent = names, silent
        self.counters: Counter[str] = Counter()
        self.faults: list[str] = []
        self.events = 0
        self.roles: tuple[Role, ...] = ()
        """Of the participants, whose engines share this machine."""
        self.tokens_per_byte = 1.0
        """Of the held-out text; 1 where a token is a byte."""
        self._print = tell
        self._started = time.monotonic()

    @property
    def run(self) -> Run | None:
        """The run that is followed."""
        row = self.state.rows.get("run")
        return row if isinstance(row, Run) else None

    def elapsed(self) -> float:
        """Seconds since the observer was made."""
        return time.monotonic() - self._started

    def take(self, event: Event) -> None:
        """One verified event."""
        self.events += 1
        try:
            message = read_message_untrusted(event)
            step = node.step(self.state, Received(message), self._now())
        except RemoteProtocolError as error:
            self.faults.append(str(error))
            return
        except Exception as error:  # a stranger's event may break the machines, but not the watch over them
            self._fault(f"event {event.id[:8]} from {self.name(event.pubkey)} broke the observer: {type(error).__name__}: {error}")
            return
        for note in step.notes:
            self.counters[note.counter] += 1
            if note.level != "info":
                self._fault(note.text)
        self.state = step.state
        self._watch(message)

    def _fault(self, text: str) -> None:
        self.faults.append(text)
        self._tell(f"! {text}")

    def _tell(self, line: str) -> None:
        """One line, whatever strangers wrote into it."""
        self._print("".join(char if char.isprintable() else "?" for char in line))

    def _tell_phase(self, number: int, milestone: str, text: str) -> None:
        self._tell(f"round {number} {PHASES.get(milestone, 'open'):<11} {text}")

    def _now(self) -> UnixTime:
        return UnixTime(int(time.time()))

    def _watch(self, message: Message) -> None:
        """Remember rounds, milestones and confirmations."""
        if isinstance(message.body, RunManifest) and self.run is not None and self.run.id == message.id and self.roles:
            for line in memory_lines(message.body, self.roles):
                self._tell(line)
        if isinstance(message.body, Confirmation) and message.body.round == 0:
            self._first(message.author, message.body)
        for key, row in self.state.rows.items():
            if key.startswith("round/") and isinstance(row, Round):
                number = row.announcement.round
                watched = self.rounds.setdefault(number, Watched(number, row))
                changed, watched.round = watched.round is not row or not watched.seen, row
                if changed:
                    self._milestones(watched)
        if isinstance(message.body, Confirmation) and message.body.round in self.rounds:
            watched = self.rounds[message.body.round]
            if watched.confirmations.setdefault(message.author, message.body) is message.body:
                self._confirmed(watched)

    def _first(self, author: Pubkey, confirmation: Confirmation) -> None:
        """Someone has fetched and verified what the manifest describes."""
        if author not in self.initial:
            self.initial[author] = confirmation
            self._tell(f"{self.name(author)} holds the first checkpoint, state {confirmation.state_id[:8]}")

    def _milestones(self, watched: Watched) -> None:
        """Note when each phase of the round was first seen complete."""
        round_ = watched.round
        run = cast("Run", self.run)
        workers, acknowledged = set(round_.announcement.workers), set(round_.acknowledgements)
        reached = {
            "announced": True,
            "committed": round_.receipt is not None,
            "acknowledged": len(round_.acknowledgements) >= run.manifest.threshold,
            "revealed": round_.receipt is not None and set(pinned(round_)) <= set(round_.reveals),
            "scored": bool(acknowledged) and acknowledged <= set(round_.verdicts),
            "attested": bool(acknowledged) and acknowledged <= round_.attested,
            "closed": round_.result is not None,
        }
        lines = {
            "announced": f"{len(workers)} workers train on state {round_.announcement.state_id[:8]}",
            "committed": f"{len(pinned(round_))} of {len(workers)} commitments pinned",
            "acknowledged": "deltas may be shown",
            "revealed": f"{len(round_.reveals)} deltas, {sum(r.blob.size for r in round_.reveals.values())} bytes",
            "scored": f"{len(round_.verdicts)} of {len(acknowledged)} verdicts",
            "attested": f"{len(round_.attested)} of {len(acknowledged)} attestations",
            "closed": self._closing(round_),
        }
        for milestone, true in reached.items():
            if true and milestone not in watched.seen:
                watched.seen[milestone] = self.elapsed()
                self._tell_phase(watched.number, milestone, lines[milestone])

    def _closing(self, round_: Round) -> str:
        if round_.result is None:
            return ""
        body = round_.result[1]
        if phase(round_, cast("Run", self.run)) is RoundPhase.ABORTED:
            return "no work could be used"
        return f"{len(body.accepted)} deltas used, state {body.state_id[:8]}"

    def _confirmed(self, watched: Watched) -> None:
        """Say it once everyone who takes part has published the same state."""
        expected = self.expected(watched.round)
        if set(watched.confirmations) >= expected and "confirmed" not in watched.seen:
            watched.seen["confirmed"] = self.elapsed()
            states = {(c.state_id, c.root) for c in watched.confirmations.values()}
            agreed = "all on the same state" if len(states) == 1 else f"! {len(states)} DIFFERENT states"
            self._tell_phase(watched.number, "confirmed", f"{len(watched.confirmations)} computed it themselves, {agreed}")

    def expected(self, round_: Round) -> set[Pubkey]:
        """Everyone who should confirm a round's result: the coordinator and all who are listed, but the silent."""
        run = cast("Run", self.run)
        listed = {run.coordinator, *round_.announcement.workers, *(entry.pubkey for entry in round_.announcement.validators)}
        return listed - self.silent

    @property
    def done(self) -> bool:
        """Whether the last round is closed and confirmed by everyone."""
        run = self.run
        if run is None or not run.finished:
            return False
        last = self.rounds.get(run.manifest.rounds)
        return last is not None and set(last.confirmations) >= self.expected(last.round)

    @property
    def over(self) -> bool:
        """Whether there is nothing more to wait for: done, or halted."""
        return self.done or (self.run is not None and self.run.halted is not None)

    def name(self, pubkey: Pubkey) -> str:
        """A participant's name in this devnet, or the start of its key."""
        return self.names.get(pubkey, pubkey[:8])
