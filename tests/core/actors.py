"""One node under test among the messages of docs/protocol.md: what it hears is scripted, what it asks of the shell is answered by the test."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeVar

import msgspec

from nostrain.core import node
from nostrain.core.effects import Effect, Ok, Outcome, Send, Sign, Signed
from nostrain.core.identity import Identity, RunPlan
from nostrain.core.inputs import Block, Boot, Done, HoldChanged, Input, NodeChanged, Received, Tick, TicketRedeemed
from nostrain.core.rows import NodeState, Outbox, Replica, Round, Row, Run
from nostrain.core.tables import ReplicaState
from nostrain.core.transaction import Note
from nostrain.core.treasury.liquidity_rows import Peer
from nostrain.protocol import messages as m
from nostrain.protocol.dataset import DatasetManifest, Shard
from nostrain.units import BlockHeight, Digest, Msat, UnixTime
from nostrain.wire.messages import read_message_untrusted
from tests.docs.examples import START, WORKERS, Examples, Party, blob

EXAMPLES = Examples()
MESSAGES: dict[str, m.Message] = {label: read_message_untrusted(event) for label, event in (EXAMPLES.events | EXAMPLES.private).items()}
LABELS = list(EXAMPLES.events)
ROUND = [MESSAGES[label] for label in LABELS]
LIMITS = EXAMPLES.deadlines


def shard(name: str, size: int) -> Shard:
    """A shard of byte tokens."""
    ref = blob(name, size)
    return Shard(ref.sha256, ref.size, ref.urls, tokens=size, text_bytes=size)


DATASET = DatasetManifest(shards=tuple(shard(f"shard {n}", 1000) for n in range(8)), validation=shard("validation", 1000))
HEIGHT = BlockHeight(800_000)
RICH = NodeChanged("ready", None, (Peer("hub", True, Msat(1 << 50), Msat(1 << 50), 483, 483),))
"""A Lightning node that can settle any round."""
R = TypeVar("R", bound=Row)
E = TypeVar("E", bound=Effect)


def until(label: str) -> list[m.Message]:
    """The round's messages up to and with that one."""
    return ROUND[: LABELS.index(label) + 1]


def say(party: Party, body: m.Body, after: int) -> m.Message:
    """The body by a party, through the wire."""
    return read_message_untrusted(party.says(body, START + after))


def changed(label: str, party: Party, after: int = 50, **changes: object) -> m.Message:
    """An example with changes, by any party."""
    return say(party, msgspec.structs.replace(MESSAGES[label].body, **changes), after)


class Node:
    """A node at a moment that the test sets."""

    def __init__(self, party: Party, *roles: Literal["coordinator", "worker", "validator"], plan: RunPlan | None = None) -> None:
        self.party, self.now = party, UnixTime(START)
        self.identity = Identity(pubkey=party.pubkey, name=party.name, roles=roles, work_dir="/work", plan=plan)
        self.state = NodeState()
        self.notes: list[Note] = []
        self.take(Boot(self.identity))
        self.take(RICH)

    def take(self, input_: Input) -> node.Step:
        """One input; the loop of the shell without journal and ports."""
        step = node.step(self.state, input_, self.now)
        self.state = step.state
        self.notes += step.notes
        return step

    def hear(self, messages: Iterable[m.Message]) -> Node:
        """Messages, one after the other."""
        for message in messages:
            self.take(Received(message))
        return self

    def at(self, after: int) -> Node:
        """Time passes to `after` seconds since the start, and the timer rings."""
        self.now = UnixTime(START + after)
        self.take(Tick())
        return self

    def past(self, deadline: int) -> Node:
        """Time passes to just after a deadline."""
        return self.at(deadline + 1 - START)

    def asks(self, kind: type[E]) -> list[E]:
        """Outstanding effects of one type."""
        return [effect for effect in node.outstanding(self.state) if isinstance(effect, kind)]

    def asked(self, kind: type[E], name: str = "") -> E:
        """The one outstanding effect of a type whose name starts so."""
        (effect,) = [effect for effect in self.asks(kind) if effect.name.startswith(name)]
        return effect

    def ends(self, effect: Effect, outcome: Outcome) -> node.Step:
        """An effect ended."""
        return self.take(Done(effect.id, outcome))

    def speak(self) -> list[m.Message]:
        """Sign and send whatever the node has to say; what it said."""
        said = []
        while speech := [effect for effect in node.outstanding(self.state) if isinstance(effect, Sign | Send)]:
            for effect in speech:
                if isinstance(effect, Sign):
                    event = self.party.says(effect.body, effect.created_at)
                    said.append(read_message_untrusted(event))
                    self.ends(effect, Signed(event, said[-1]))
                else:
                    self.ends(effect, Ok())
        return said

    def row(self, key: str, kind: type[R]) -> R:
        """The row under `key`."""
        row = self.state.rows[key]
        assert isinstance(row, kind)
        return row

    def has(self, key: str) -> bool:
        """Whether there is such a row."""
        return key in self.state.rows

    @property
    def run(self) -> Run:
        """The run's row."""
        return self.row("run", Run)

    @property
    def round(self) -> Round:
        """The round's row."""
        return self.row(f"round/{EXAMPLES.round_id}", Round)

    def told(self, counter: str) -> list[str]:
        """What was noted under a counter."""
        return [note.text for note in self.notes if note.counter == counter]

    def ready(self) -> Node:
        """Give the node its copy of the first state, as if it had fetched and inspected it."""
        row = self.row("replica", Replica)
        after = msgspec.structs.replace(
            row,
            state=ReplicaState.READY,
            dataset=DATASET,
            checkpoint="/work/checkpoint",
            blob=EXAMPLES.manifest.checkpoint,
            state_id=EXAMPLES.state_id,
            root=EXAMPLES.manifest.root,
            confirming=None,
        )
        rows = {key: kept for key, kept in self.state.rows.items() if not key.startswith("effect/replica")}
        self.state = NodeState({**rows, "replica": after})
        return self

    def held(self, payment_hash: Digest, amount: Msat, expiry: int = HEIGHT + 80) -> node.Step:
        """Our Lightning node reports an accepted HTLC."""
        return self.take(HoldChanged(payment_hash, "accepted", amount, BlockHeight(expiry)))

    def sold(self) -> Node:
        """Every worker has bought its ticket of the round, if it is open."""
        for party in WORKERS:
            self.take(TicketRedeemed(EXAMPLES.round_id, party.pubkey, 1, Digest("00" * 32), Digest("00" * 32)))
        return self

    def block(self, height: int = HEIGHT) -> Node:
        """A block."""
        self.take(Block(BlockHeight(height)))
        return self


def refuses(messages: Iterable[m.Message], bad: m.Message, reason: str) -> None:
    """A node that has heard `messages` refuses `bad` with `reason`, and nothing of it stays but suspicion."""
    listener = Node(Party("listener"))
    listener.now = UnixTime(START + 100)
    listener.hear(messages)
    before = listener.state.rows
    listener.take(Received(bad))
    assert [reason in text for text in listener.told("messages_refused")] == [True], listener.told("messages_refused")
    after = {key: row for key, row in listener.state.rows.items() if key != "run" and "suspicion/" not in key}
    assert after == {key: row for key, row in before.items() if key != "run"}


def outbox(node_: Node, key: str) -> Outbox:
    """Something that a node said or wants to say."""
    return node_.row(f"outbox/{key}", Outbox)
