"""A whole network in one `trio.run`: the daemon's own runtime, machines, locks, oracles and journals over fake relays, mail, blobs and money.

Virtual clock, no threads, no sockets; every fault comes from the seed. A participant may be crashed at any of its commits: its runtime is
dropped and a new one starts from the same journal file, as after `kill -9`.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import trio

from nostrain.core.rows import Identity, Run, RunPlan
from nostrain.core.transaction import Note
from nostrain.daemon.feeds import run_feeds
from nostrain.daemon.ports import Ports
from nostrain.daemon.runtime import Runtime
from nostrain.journal.sqlite import SqliteJournal
from nostrain.keys.oracle import DlcOracle
from nostrain.keys.signer import NostrSigner
from nostrain.keys.store import open_root
from nostrain.protocol.event import Event
from nostrain.protocol.jobs import AggregateJob, BuildRunJob, EvaluateJob, Job, TrainJob
from nostrain.protocol.manifest import SettlementSpec, TimingSpec
from nostrain.protocol.messages import Message
from nostrain.testing.blobs import FakeBlobs, FakeBlobServer
from nostrain.testing.clock import VirtualClock
from nostrain.testing.engine import StubEngine
from nostrain.testing.entropy import SeededEntropy
from nostrain.testing.journal import CrashingJournal, SimulatedCrash, When
from nostrain.testing.lightning import FakeLedger, FakeLightning
from nostrain.testing.mail import FakeMail, FakePostOffice
from nostrain.testing.relays import FakeRelayNetwork, Faults
from nostrain.units import Msat, Pubkey
from nostrain.wire.messages import read_message_untrusted

Role = Literal["coordinator", "worker", "validator"]
BLOCK_S = 600
FIRST_BLOCK = 800_000
TIMING = TimingSpec(commit_s=240, acknowledge_s=120, reveal_s=120, verdict_s=240, attest_s=120, grace_s=10)
LEVEL_MSAT = Msat(10_000_000)
FUNDS_MSAT = Msat(1_000_000_000)
DURATIONS: Mapping[type[Job], float] = {BuildRunJob: 5, TrainJob: 20, EvaluateJob: 10, AggregateJob: 1}


@dataclass(frozen=True)
class Plan:
    """What to simulate. `crash` names a participant, the number of its commit to die at, and on which side of it."""

    seed: int = 0
    rounds: int = 2
    workers: int = 3
    validators: int = 3
    threshold: int = 2
    paid: bool = True
    faults: Faults = field(default_factory=Faults)
    unavailable: float = 0.0
    crash: tuple[str, int, When] | None = None
    restart_after_s: float = 5.0
    silent: frozenset[str] = frozenset()
    quality: Mapping[str, float] = field(default_factory=dict)
    lost_replies: int = 0
    instances: int = 3
    timing: TimingSpec = TIMING
    level_msat: Msat = LEVEL_MSAT
    funds_msat: Msat = FUNDS_MSAT


class Participant:
    """One node: everything of it that survives a crash, and the runtime that does not."""

    def __init__(self, name: str, role: Role, folder: Path, sim: Simulation) -> None:
        self.name, self.role, self.folder, self.sim = name, role, folder, sim
        self.entropy = SeededEntropy(sim.plan.seed, name)
        self.root = open_root(folder, SeededEntropy(sim.plan.seed, f"{name}/root").draw)
        self.signer = NostrSigner(self.root)
        self.pubkey: Pubkey = self.signer.pubkey
        self.crashes = 0
        self.commits = 0
        self.runtime: Runtime | None = None
        self.notes: list[Note] = []

    async def live(self) -> None:
        """Run, crash, restart, until cancelled."""
        plan = self.sim.plan
        while True:
            at, when = 0, When.BEFORE
            if plan.crash is not None and plan.crash[0] == self.name and self.crashes == 0:
                at, when = plan.crash[1], plan.crash[2]
            try:
                await self._run_once(at, when)
            except* SimulatedCrash:
                self.crashes += 1
            await trio.sleep(plan.restart_after_s)

    async def _run_once(self, at: int, when: When) -> None:
        sim = self.sim
        rng = random.Random(f"{sim.plan.seed}/{self.name}/{self.crashes}")
        journal = SqliteJournal.open(self.folder / "journal.sqlite", power_safe=False)
        oracle = (
            DlcOracle(self.root, self.folder, SeededEntropy(sim.plan.seed, f"{self.name}/oracle").draw)
            if self.role == "validator"
            else None
        )
        crashing = CrashingJournal(journal, at, when)
        try:
            async with sim.relays.open(self.name) as relays:
                ports = Ports(
                    clock=sim.clock,
                    entropy=self.entropy,
                    signer=self.signer,
                    oracle=oracle,
                    relays=relays,
                    blobs=FakeBlobs(sim.blobs, self.folder / "blobs", rng, unavailable=sim.plan.unavailable, latency=0.2),
                    engine=StubEngine(sim.quality, DURATIONS),
                    journal=crashing,
                    mail=FakeMail(sim.office, self.pubkey),
                    lightning=FakeLightning(sim.ledger, self.name),
                    threads=False,
                )
                self.runtime = Runtime(ports, self._identity(), observe=self.notes.append)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self.runtime.run)
                    nursery.start_soon(run_feeds, self.runtime)
        finally:
            self.commits += crashing.commits
            journal.close()
            if oracle is not None:
                oracle.close()

    def _identity(self) -> Identity:
        plan = self.sim.plan
        work_dir = self.folder / "work"
        work_dir.mkdir(exist_ok=True)
        run_plan = RunPlan(
            name="simulated",
            rounds=plan.rounds,
            min_workers=plan.workers,
            min_validators=plan.validators,
            threshold=plan.threshold,
            text=None,
            seed=plan.seed,
            shard_bytes=4096,
            validation_bytes=4096,
            blob_servers=(self.sim.blobs.url,),
            work_dir=str(work_dir),
            timing=plan.timing,
            settlement=SettlementSpec(
                mode="hold" if plan.paid else "none", level_msat=plan.level_msat, instances=plan.instances, min_final_cltv=80
            ),
        )
        return Identity(
            pubkey=self.pubkey,
            name=self.name,
            roles=(self.role,),
            work_dir=str(work_dir),
            plan=run_plan if self.role == "coordinator" else None,
        )

    @property
    def run(self) -> Run | None:
        """The run as this participant sees it."""
        row = self.runtime.state.rows.get("run") if self.runtime else None
        return row if isinstance(row, Run) else None


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
        self.ledger = FakeLedger(lambda: FIRST_BLOCK + (self.clock.now() - started) // BLOCK_S, lost_replies=plan.lost_replies)
        names: list[tuple[str, Role]] = [("coordinator", "coordinator")]
        names += [(f"validator-{index}", "validator") for index in range(plan.validators)]
        names += [(f"worker-{index}", "worker") for index in range(plan.workers)]
        self.participants = {name: Participant(name, role, folder / name, self) for name, role in names}
        self.quality: dict[Pubkey, float] = {self.participants[name].pubkey: value for name, value in plan.quality.items()}
        self.ledger.balances = {name: plan.funds_msat if name == "coordinator" else Msat(0) for name, _ in names}
        self.funds = self.ledger.total()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Everyone alive while the context is open, but for the silent."""
        async with trio.open_nursery() as nursery:
            for name, participant in self.participants.items():
                if name not in self.plan.silent:
                    nursery.start_soon(participant.live)
            yield
            nursery.cancel_scope.cancel()

    async def until(self, condition: Callable[[], bool], *, limit_s: float) -> bool:
        """Wait in virtual time for `condition`; whether it came within `limit_s`."""
        with trio.move_on_after(limit_s):
            while not condition():  # noqa: ASYNC110 - virtual seconds cost nothing, and a condition spans participants
                await trio.sleep(1)
        return condition()

    def said(self, body: type) -> list[Message]:
        """Every message of one type that reached the relays, in order of publication."""
        messages = (read_message_untrusted(event) for event in self.relays.events.values() if is_ours(event))
        return [message for message in messages if isinstance(message.body, body)]

    def live(self, role: Role) -> list[Participant]:
        """Participants of a role that are not silent."""
        return [one for name, one in self.participants.items() if one.role == role and name not in self.plan.silent]


def is_ours(event: Event) -> bool:
    """Whether the event carries our tag."""
    return event.tag("t") == "nostrain"
