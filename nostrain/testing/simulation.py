"""A whole network in one `trio.run`: the daemon's own runtime, machines, locks, oracles and journals over fake relays, mail, blobs and money.

Virtual clock, no threads, no sockets; every fault comes from the seed. A participant may be crashed at any step of any of its effects:
its runtime is dropped and a new one starts from the same journal, as after `kill -9`.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from nostrain.daemon.runners import Perform
from nostrain.ports.relays import Relays
from nostrain.protocol.event import Event
from nostrain.protocol.limits import MAX_WORKERS
from nostrain.protocol.manifest import ScoringSpec, SettlementSpec, TimingSpec
from nostrain.protocol.messages import Message
from nostrain.testing.blobs import FakeBlobServer
from nostrain.testing.clock import VirtualClock
from nostrain.testing.lightning import FakeLedger
from nostrain.testing.mail import FakePostOffice
from nostrain.testing.participant import EngineMaker, Participant, Role
from nostrain.testing.relays import FakeRelayNetwork, Faults
from nostrain.testing.steps import Death
from nostrain.testing.tickets import FakeTicketOffice, TicketFaults
from nostrain.units import EventId, Msat, Ppm, Pubkey
from nostrain.wire.messages import read_message_untrusted

BLOCK_S = 600
TRAIN_S = 20.0
FIRST_BLOCK = 800_000
TIMING = TimingSpec(commit_s=240, acknowledge_s=120, reveal_s=120, verdict_s=240, attest_s=120, grace_s=10)
SCORING = ScoringSpec()
LEVEL_MSAT = Msat(10_000_000)
FUNDS_MSAT = Msat(1_000_000_000)
NO_FEE = Msat(0)


@dataclass(frozen=True)
class Plan:
    """What to simulate.

    `deaths` are when participants die, to start again after `restart_after_s`. `absent` are not started with the others, or never. `on_disk`
    keep their journal in SQLite, the others in memory. `engines` wraps the stub engine of a participant, `runners` perform its effects (a
    cheater's). Training takes `train_s`. `relays` are those that the manifest names. The pool is what makes a level pay `level_msat`. With a fee, every worker has just enough for a ticket of each round.
    """

    seed: int = 0
    rounds: int = 2
    workers: int = 3
    validators: int = 3
    threshold: int = 2
    min_workers: int | None = None
    min_validators: int | None = None
    paid: bool = True
    faults: Faults = field(default_factory=Faults)
    unavailable: float = 0.0
    deaths: tuple[Death, ...] = ()
    restart_after_s: float = 5.0
    absent: frozenset[str] = frozenset()
    on_disk: frozenset[str] = frozenset({"coordinator"})
    quality: Mapping[str, float] = field(default_factory=dict)
    engines: Mapping[str, EngineMaker] = field(default_factory=dict)
    runners: Mapping[str, Perform] = field(default_factory=dict)
    lost_replies: int = 0
    instances: int = 3
    scoring: ScoringSpec = SCORING
    timing: TimingSpec = TIMING
    slots: int = MAX_WORKERS
    epoch_rounds: int = 1
    level_msat: Msat = LEVEL_MSAT
    funds_msat: Msat = FUNDS_MSAT
    fee_msat: Msat = NO_FEE
    validator_share_ppm: Ppm = SettlementSpec().validator_share_ppm
    ticket_faults: TicketFaults = field(default_factory=TicketFaults)
    block_s: int = BLOCK_S
    train_s: float = TRAIN_S
    relays: tuple[str, ...] = ()
    cache_bytes: int = 0
    delay: int = 0


class Simulation:
    """The network. Made inside `trio.run`; `folder` holds every participant's data folder."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan = plan
        self.clock = VirtualClock()
        started = self.clock.now()
        self.relays = FakeRelayNetwork(plan.seed, plan.faults)
        self.blobs = FakeBlobServer()
        faults = plan.faults
        self.office = FakePostOffice(random.Random(plan.seed), faults.loss, faults.unavailable, faults.delay_s, faults.requery_s)
        self.ledger = FakeLedger(
            lambda: FIRST_BLOCK + (self.clock.now() - started) // plan.block_s, lost_replies=plan.lost_replies, now=self.clock.now
        )
        names: list[tuple[str, Role]] = [("coordinator", "coordinator")]
        names += [(f"validator-{index}", "validator") for index in range(plan.validators)]
        names += [(f"worker-{index}", "worker") for index in range(plan.workers)]
        self.participants = {name: Participant(name, role, folder / name, self) for name, role in names}
        self.quality: dict[Pubkey, float] = {self.participants[name].pubkey: value for name, value in plan.quality.items()}
        funds = {"coordinator": plan.funds_msat, "worker": Msat(plan.fee_msat * plan.rounds), "validator": Msat(0)}
        self.ledger.balances = {name: funds[role] for name, role in names}
        self.started = dict(self.ledger.balances)
        coordinator = self.participants["coordinator"]
        self.tickets = FakeTicketOffice(
            self.ledger, self.clock, plan.seed, coordinator.root, lambda: coordinator.runtime, plan.ticket_faults
        )
        self.funds = self.ledger.total()
        self._nursery: trio.Nursery | None = None
        self._understood: dict[EventId, Message] = {}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Everyone alive while the context is open, but for the absent."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for name in self.participants:
                if name not in self.plan.absent:
                    self.start(name)
            yield
            nursery.cancel_scope.cancel()

    def relays_of(self, one: Participant) -> AbstractAsyncContextManager[Relays]:
        """The relays as a participant sees them, for one life of its runtime."""
        return self.relays.open(one.name)

    def start(self, name: str) -> None:
        """Bring a participant to life that was absent or stopped."""
        assert self._nursery is not None
        self._nursery.start_soon(self.participants[name].live)

    async def until(self, condition: Callable[[], bool], *, limit_s: float) -> bool:
        """Wait in virtual time for `condition`; whether it came within `limit_s`."""
        with trio.move_on_after(limit_s):
            while not condition():  # noqa: ASYNC110 - virtual seconds cost nothing, and a condition spans participants
                await trio.sleep(1)
        return condition()

    def said(self, body: type) -> list[Message]:
        """Every message of one type that reached the relays, in order of publication."""
        return self._of_type(body, (event for event in self.relays.events.values() if is_ours(event)))

    def mailed(self, body: type) -> list[Message]:
        """Every private message of one type, once."""
        letters = {event.id: event for letters in self.office.letters.values() for event in letters}
        return self._of_type(body, letters.values())

    def _of_type(self, body: type, events: Iterable[Event]) -> list[Message]:
        for event in (events := list(events)):
            if event.id not in self._understood:
                self._understood[event.id] = read_message_untrusted(event)
        messages = (self._understood[event.id] for event in events)
        return [message for message in messages if isinstance(message.body, body)]

    def live(self, role: Role) -> list[Participant]:
        """Participants of a role that are not absent."""
        return [one for name, one in self.participants.items() if one.role == role and name not in self.plan.absent]

    def key(self, name: str) -> Pubkey:
        """A participant's public key."""
        return self.participants[name].pubkey


def is_ours(event: Event) -> bool:
    """Whether the event carries our tag."""
    return event.tag("t") == "nostrain"
