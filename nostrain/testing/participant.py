"""One node of a simulation: everything of it that survives a crash, and the runtime that does not."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import trio

from nostrain.core.identity import Identity, RunPlan
from nostrain.core.rows import Replica, Run
from nostrain.core.transaction import Note
from nostrain.daemon.feeds import run_feeds
from nostrain.daemon.ports import Ports
from nostrain.daemon.runtime import Runtime
from nostrain.journal.sqlite import SqliteJournal
from nostrain.keys.oracle import DlcOracle
from nostrain.keys.signer import NostrSigner
from nostrain.keys.store import open_root
from nostrain.ports.engine import Engine
from nostrain.ports.journal import Journal
from nostrain.protocol.event import Event
from nostrain.protocol.jobs import AggregateJob, BuildRunJob, EvaluateJob, Job, TrainJob
from nostrain.protocol.manifest import SettlementSpec
from nostrain.protocol.messages import Body
from nostrain.testing.blobs import FakeBlobs
from nostrain.testing.engine import StubEngine
from nostrain.testing.entropy import SeededEntropy
from nostrain.testing.journal import MemoryJournal
from nostrain.testing.lightning import FakeLightning
from nostrain.testing.mail import FakeMail
from nostrain.testing.steps import SimulatedCrash, Step, Steps
from nostrain.testing.tickets import SERVER
from nostrain.units import Msat, Pubkey, UnixTime
from nostrain.wire.messages import draft

if TYPE_CHECKING:
    from nostrain.testing.simulation import Simulation

Role = Literal["coordinator", "worker", "validator"]
DURATIONS: dict[type[Job], float] = {BuildRunJob: 5, EvaluateJob: 10, AggregateJob: 1}
EngineMaker = Callable[[StubEngine], Engine]
PAY_TOLD = Step("lightning", "pay", "told")
"""The HTLC is sent, and its sender waits for what becomes of it."""


class Participant:
    """A name, keys, a data folder; a runtime while it lives. A participant of the plan's `on_disk` keeps its journal in SQLite."""

    def __init__(self, name: str, role: Role, folder: Path, sim: Simulation) -> None:
        self.name, self.role, self.folder, self.sim = name, role, folder, sim
        self.entropy = SeededEntropy(sim.plan.seed, name)
        self.root = open_root(folder, SeededEntropy(sim.plan.seed, f"{name}/root").draw)
        self.signer = NostrSigner(self.root)
        self.pubkey: Pubkey = self.signer.pubkey
        self.crashes = 0
        self.steps = Steps(death for death in sim.plan.deaths if death.name == name)
        self.runtime: Runtime | None = None
        self.notes: list[Note] = []
        self.memory = MemoryJournal()
        self._life = trio.CancelScope()

    async def live(self) -> None:
        """Run, crash, restart, until stopped or cancelled."""
        with trio.CancelScope() as self._life:
            while True:
                self.steps.revive()
                try:
                    await self._run_once()
                except* SimulatedCrash:
                    self.crashes += 1
                await trio.sleep(self.sim.plan.restart_after_s if self.steps.down_s is None else self.steps.down_s)

    def stop(self) -> None:
        """As kill -9, for good; `Simulation.start` brings it back."""
        self._life.cancel()

    def sign(self, body: Body, created_at: UnixTime | None = None) -> Event:
        """An event that this participant's key signs behind the back of its runtime: what a dishonest program would send."""
        return self.signer.sign(draft(body, self.sim.clock.now() if created_at is None else created_at))

    @property
    def run(self) -> Run | None:
        """The run as this participant sees it."""
        row = self.runtime.state.rows.get("run") if self.runtime else None
        return row if isinstance(row, Run) else None

    @property
    def replica(self) -> Replica | None:
        """Its copy of the model's state."""
        row = self.runtime.state.rows.get("replica") if self.runtime else None
        return row if isinstance(row, Replica) else None

    async def _run_once(self) -> None:
        sim, over = self.sim, self.steps.over
        rng = random.Random(f"{sim.plan.seed}/{self.name}/{self.crashes}")
        sqlite = SqliteJournal.open(self.folder / "journal.sqlite", power_safe=False) if self.name in sim.plan.on_disk else None
        journal: Journal = self.memory if sqlite is None else sqlite
        oracle = (
            DlcOracle(self.root, self.folder, SeededEntropy(sim.plan.seed, f"{self.name}/oracle").draw)
            if self.role == "validator"
            else None
        )
        stub = StubEngine(sim.quality, DURATIONS | {TrainJob: sim.plan.train_s})
        try:
            async with sim.relays_of(self) as relays:
                ports = Ports(
                    clock=sim.clock,
                    entropy=over("entropy", self.entropy),
                    signer=over("signer", self.signer),
                    oracle=over("oracle", oracle) if oracle is not None else None,
                    relays=over("relays", relays),
                    blobs=over("blobs", FakeBlobs(sim.blobs, self.folder / "blobs", rng, unavailable=sim.plan.unavailable, latency=0.2)),
                    engine=over("engine", sim.plan.engines[self.name](stub) if self.name in sim.plan.engines else stub),
                    journal=over("journal", journal),
                    mail=over("mail", FakeMail(sim.office, self.pubkey)),
                    lightning=over("lightning", FakeLightning(sim.ledger, self.name, lambda: self.steps.reach(PAY_TOLD)))
                    if sim.plan.paid
                    else None,
                    tickets=over("tickets", sim.tickets.buyer(self.name, self.signer, self.steps)) if self.role == "worker" else None,
                    threads=False,
                )
                self.runtime = Runtime(ports, self._identity(), observe=self.notes.append, runner=sim.plan.runners.get(self.name))
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self.runtime.run)
                    nursery.start_soon(run_feeds, self.runtime)
        finally:
            if sqlite is not None:
                sqlite.close()
            if oracle is not None:
                oracle.close()

    def _identity(self) -> Identity:
        work_dir = self.folder / "work"
        work_dir.mkdir(exist_ok=True)
        plan = self._run_plan(work_dir) if self.role == "coordinator" else None
        return Identity(
            pubkey=self.pubkey,
            name=self.name,
            roles=(self.role,),
            work_dir=str(work_dir),
            plan=plan,
            cache_bytes=self.sim.plan.cache_bytes,
            machine="a stub",
        )

    def _run_plan(self, work_dir: Path) -> RunPlan:
        plan = self.sim.plan
        mode: Literal["hold", "none"] = "hold" if plan.paid else "none"
        return RunPlan(
            name="simulated",
            rounds=plan.rounds,
            min_workers=plan.workers if plan.min_workers is None else plan.min_workers,
            min_validators=plan.validators if plan.min_validators is None else plan.min_validators,
            threshold=plan.threshold,
            text=None,
            seed=plan.seed,
            shard_bytes=4096,
            validation_bytes=4096,
            blob_servers=(self.sim.blobs.url,),
            relays=plan.relays,
            work_dir=str(work_dir),
            scoring=plan.scoring,
            timing=plan.timing,
            delay=plan.delay,
            settlement=SettlementSpec(
                mode=mode,
                pool_msat=Msat(plan.level_msat * len(plan.scoring.levels_ppm) * plan.slots),
                slots=plan.slots,
                epoch_rounds=plan.epoch_rounds,
                fee_msat=plan.fee_msat,
                ticket_server=SERVER if plan.fee_msat else "",
                instances=plan.instances,
                min_final_cltv=80,
                validator_share_ppm=plan.validator_share_ppm,
            ),
        )
