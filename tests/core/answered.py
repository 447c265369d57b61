"""A whole node in a hostile or unlucky world: only what lies outside of it is answered by hand: blobs, engine, oracle, relays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, TypeVar

from nostrain.core.effects import (
    ChainLink,
    Compute,
    Computed,
    Credentials,
    CredentialsRead,
    DatasetRead,
    Discard,
    Draw,
    Drawn,
    Effect,
    Evict,
    Fetch,
    FetchDataset,
    Fetched,
    LinkRead,
    MakeOffer,
    OfferMade,
    Ok,
    OracleAnnounce,
    OracleAnnounced,
    Outcome,
    Send,
    Sign,
    Signed,
)
from nostrain.core.identity import Identity
from nostrain.core.inputs import Boot, Done, Input, Received
from nostrain.core.node import outstanding, step
from nostrain.core.rows import NodeState, Replica
from nostrain.core.transaction import Note
from nostrain.hashes import sha256_hex
from nostrain.protocol import messages as m
from nostrain.protocol.dataset import DatasetManifest, Shard
from nostrain.protocol.jobs import AggregateJob, AggregateResult, InspectJob, InspectResult, ValidationJob, ValidationResult
from nostrain.protocol.manifest import BlobRef, RunManifest
from nostrain.units import Digest, UnixTime
from nostrain.wire.messages import draft, read_message_untrusted
from tests.core.actors import EXAMPLES
from tests.core.reading import Readable
from tests.docs.examples import START, Party

SHARDS = tuple(Shard(Digest(sha256_hex(b"shard %d" % n)), 9_000, tokens=9_000, text_bytes=9_000) for n in range(9))
DATASET = DatasetManifest(shards=SHARDS, validation=Shard(Digest(sha256_hex(b"validation")), 9_000, tokens=9_000, text_bytes=9_000))
LATER = UnixTime(START + 1_000)
MOST_EFFECTS = 500
BodyT = TypeVar("BodyT", bound=m.Body)
Role = Literal["coordinator", "worker", "validator"]
OTHER_STATE = AggregateResult(Digest("1" * 64), Digest("2" * 64), BlobRef(Digest("3" * 64), 100), (1, 2))


class Node(Readable):
    """A node at `now` whose effects end as `answers` says, by the beginning of their names; the others end well."""

    def __init__(self, party: Party, *roles: Role, now: int = LATER, answers: Mapping[str, Outcome] | None = None) -> None:
        self.party, self.answers, self.now = party, answers or {}, now
        self.notes: list[Note] = []
        self.said: list[m.Message] = []
        self.state = NodeState()
        self.take(Boot(Identity(pubkey=party.pubkey, name="node", roles=roles, work_dir="/nowhere")))

    def take(self, input_: Input) -> None:
        taken = step(self.state, input_, UnixTime(self.now))
        self.state = taken.state
        self.notes += taken.notes

    def hear(self, messages: Iterable[m.Message]) -> Node:
        for message in messages:
            now = self.now
            if isinstance(message.body, RunManifest):  # who hears of a run later than it was made waits first (test_leap)
                self.now = message.created_at
            self.take(Received(message))
            self.now = now
            self.work()
        return self

    def work(self, *, without: str = "nothing") -> None:
        """Answer all that is asked for, until nothing is; leave what is named `without`."""
        for _ in range(MOST_EFFECTS):
            asked = [effect for effect in outstanding(self.state) if not effect.name.startswith(without)]
            if not asked:
                return
            self.take(Done(asked[0].id, self.outcome(asked[0])))
        raise AssertionError(f"it asks again and again: {asked[0].id}")

    def outcome(self, effect: Effect) -> Outcome:
        for name, outcome in self.answers.items():
            if effect.name.startswith(name):
                return outcome
        party = self.party
        match effect:
            case Sign():
                event = party.signer.sign(draft(effect.body, effect.created_at))
                self.said.append(read_message_untrusted(event))
                return Signed(event, self.said[-1])
            case Send() | Discard() | Evict():
                return Ok()
            case Draw():
                return Drawn("cd" * effect.size)
            case FetchDataset():
                return DatasetRead(DATASET)
            case Fetch():
                return Fetched("/nowhere/blob")
            case Compute(job=InspectJob()):
                return Computed(InspectResult(EXAMPLES.manifest.root))
            case Compute(job=ValidationJob()):
                return Computed(ValidationResult(5_000_000_000, 16_384))
            case Compute(job=AggregateJob()):
                return Computed(OTHER_STATE)
            case Credentials():
                return CredentialsRead(party.oracle, party.endorsement(effect.run), party.chain_link(effect.run, 0))
            case MakeOffer():
                return OfferMade(party.payout())
            case ChainLink():
                return LinkRead(party.chain_link(effect.run, effect.index))
            case OracleAnnounce():
                items = [party.announces(event_id, effect.digits, effect.maturity, payee) for payee, event_id in effect.events]
                return OracleAnnounced(tuple(items))
        raise AssertionError(f"nobody answers {effect.id}")

    @property
    def replica(self) -> Replica:
        row = self.state.rows["replica"]
        assert isinstance(row, Replica)
        return row

    def counted(self, counter: str) -> int:
        return sum(note.counter == counter for note in self.notes)

    def bodies(self, kind: type[BodyT]) -> list[BodyT]:
        return [message.body for message in self.said if isinstance(message.body, kind)]
