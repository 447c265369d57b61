"""What a running daemon says of itself: the answer to `nostrain-ctl status`, and the same as metrics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import nostrain
from nostrain.config.schema import DaemonConfig, SettlementConfig
from nostrain.core.identity import Identity
from nostrain.core.rounds.round import phase
from nostrain.core.rows import Duty, NodeState, Replica, Round, Run, Submission
from nostrain.core.tables import ReplicaState
from nostrain.core.treasury.liquidity import KEY, held_up, warnings
from nostrain.core.treasury.liquidity_rows import LightningNode
from nostrain.daemon.billboard import Billboard
from nostrain.daemon.channel_plan import channel_plan
from nostrain.daemon.held_model import held_model, run_model
from nostrain.daemon.runtime import Runtime, outstanding_ids
from nostrain.daemon.wallet import earnings, read_wallet
from nostrain.engine import EngineProcess
from nostrain.errors import Unavailable
from nostrain.lightning.rpc import Rpc
from nostrain.nostr.pool import RelayPool
from nostrain.protocol.export import RunModel
from nostrain.protocol.footprint import evaluation_needs, needed_bytes
from nostrain.units import Pubkey
from nostrain.wire.control import CatchingUp, ChannelPlan, Earnings, LedgerPage, LightningStatus, MemoryStatus, RunStatus, Status, Wallet

PAGE: Final = 1000
"""Entries of the ledger in one answer: some 500 bytes each."""


@dataclass
class Node:
    """A composed node: `pool` and `runtime` are None in a daemon that only serves blobs."""

    config: DaemonConfig
    pubkey: Pubkey
    engine: EngineProcess
    pool: RelayPool | None = None
    runtime: Runtime | None = None
    blobs_url: str | None = None
    rpc: Rpc | None = None
    billboard: Billboard | None = None

    def status(self) -> Status:
        """What `nostrain-ctl status` shows."""
        state = self.runtime.state if self.runtime else NodeState()
        run, replica = state.rows.get("run"), state.rows.get("replica")
        current = run.open if isinstance(run, Run) else None
        work, duty = state.rows.get(f"work/{current}"), state.rows.get(f"duty/{current}")
        return Status(
            name=self.config.name,
            pubkey=self.pubkey,
            roles=self.config.roles,
            version=nostrain.__version__,
            relays_connected=self.pool.connected if self.pool else (),
            run=run_status(run, state) if isinstance(run, Run) else None,
            state_id=replica.state_id if isinstance(replica, Replica) else None,
            replica=replica.state.value if isinstance(replica, Replica) else None,
            submission=work.state.value if isinstance(work, Submission) else None,
            duty=duty.state.value if isinstance(duty, Duty) else None,
            outstanding=tuple(outstanding_ids(state)),
            counters=self.counters(),
            engine_starts=self.engine.starts,
            blobs_url=self.blobs_url,
            lightning=lightning_status(state) if self.rpc is not None else None,
            online=self.billboard.online() if self.billboard else (),
            memory=memory_status(state),
            catching_up=catching_up(run, replica, state) if isinstance(run, Run) and isinstance(replica, Replica) else None,
        )

    async def wallet(self) -> Wallet:
        """What `nostrain-ctl wallet` shows. Raises Unavailable, also when there is no Lightning node to ask."""
        if self.rpc is None:
            raise Unavailable(
                "this daemon has no Lightning node; set lightning.socket or lightning.node in its configuration to give it one"
            )
        return await read_wallet(self.rpc, self.runtime.state if self.runtime else None)

    def plan(self, workers: int, rounds: int) -> ChannelPlan:
        """What `nostrain-ctl wallet plan` shows; 0 workers or rounds: as many as the manifest has. Raises Unavailable when there is none that pays."""
        state = self.runtime.state if self.runtime else NodeState()
        run, me, node = state.rows.get("run"), state.rows.get("node"), state.rows.get(KEY)
        source = run.manifest if isinstance(run, Run) else me.plan if isinstance(me, Identity) else None
        if source is None or source.settlement.mode == "none":
            raise Unavailable("there is no paid run to plan channels for")
        settings = self.config.coordinator.run.settlement if self.config.coordinator else SettlementConfig()
        return channel_plan(
            source.settlement,
            len(source.scoring.levels_ppm),
            workers or source.settlement.slots,
            rounds or source.rounds,
            settings.feerate_perkb,
            node if isinstance(node, LightningNode) else None,
        )

    async def earnings(self) -> Earnings:
        """What `nostrain-ctl earnings` shows. Raises Unavailable where nothing is earned."""
        if self.runtime is None:
            return earnings(NodeState())
        totals = await self.runtime.totals()
        return earnings(self.runtime.state, totals)

    async def ledger(self, start: int) -> LedgerPage:
        """The ledger from sequence number `start`, as far as it fits into an answer."""
        found = await self.runtime.ledger(start, PAGE + 1) if self.runtime else ()
        return LedgerPage(found[:PAGE], more=len(found) > PAGE)

    async def model(self) -> RunModel:
        """The model's state that `nostrain-ctl model export` takes out. Raises Unavailable when there is none."""
        if self.runtime is None:
            return run_model(NodeState())
        return await held_model(self.runtime.state, self.runtime.ports.blobs)

    def counters(self) -> dict[str, int]:
        """Counters of the machines, and of the relay connections under `relay …`."""
        own = dict(self.runtime.counters) if self.runtime else {}
        return own | {f"relay {name}": count for name, count in (self.pool.counts if self.pool else {}).items()}


def memory_status(state: NodeState) -> MemoryStatus | None:
    """What the engine needs and has; None for a role that neither trains nor evaluates."""
    me, run = state.rows.get("node"), state.rows.get("run")
    if not isinstance(me, Identity) or not {"worker", "validator"} & set(me.roles):
        return None
    if not isinstance(run, Run):
        return MemoryStatus(me.memory)
    training = needed_bytes(run.manifest.model, run.manifest.training, checkpointing=me.checkpointing)
    return MemoryStatus(me.memory, *(training if "worker" in me.roles else evaluation_needs(run.manifest)))


def run_status(run: Run, state: NodeState) -> RunStatus:
    """Where the run stands, as far as we know."""
    round_ = state.rows.get(f"round/{run.open}")
    between = "finished" if run.finished else "between rounds"
    now = phase(round_, run).value if isinstance(round_, Round) else between
    return RunStatus(run.id, run.manifest.name, run.coordinator, run.round, run.manifest.rounds, now, run.halted)


def catching_up(run: Run, replica: Replica, state: NodeState) -> CatchingUp | None:
    """How far our copy of the state has come, when it lies more than the last round behind; None also when it will come no further."""
    round_ = state.rows.get(f"round/{replica.leap.announcement}") if replica.leap is not None else None
    if replica.state is ReplicaState.DIVERGED or (replica.leap is None and run.round - replica.round < 2):
        return None
    return CatchingUp(replica.round, run.round, round_.announcement.round if isinstance(round_, Round) else None)


def lightning_status(state: NodeState) -> LightningStatus:
    """Whether our Lightning node can settle rounds of the run that we follow; before there is one, whether it is there at all."""
    node, hindrance = state.rows.get(KEY), held_up(state)
    found = node if isinstance(node, LightningNode) else None
    if hindrance is not None:
        return LightningStatus(hindrance.state, hindrance.reason, warnings(state))
    return LightningStatus(found.state if found else "unknown", found.reason if found else None, warnings(state))


def metrics(status: Status) -> str:
    """Prometheus text exposition (format 0.0.4) of the counters and of where the daemon stands."""
    lines = ["# TYPE nostrain_events_total counter"]
    lines += [f'nostrain_events_total{{what="{escaped(name)}"}} {count}' for name, count in sorted(status.counters.items())]
    for name, value in (
        ("nostrain_relays_connected", len(status.relays_connected)),
        ("nostrain_round", status.run.round if status.run else 0),
        ("nostrain_rounds_behind", status.catching_up.of - status.catching_up.round if status.catching_up else 0),
        ("nostrain_run_halted", int(status.run is not None and status.run.halted is not None)),
        ("nostrain_effects_outstanding", len(status.outstanding)),
        *((("nostrain_lightning_ready", int(status.lightning.state == "ready")),) if status.lightning else ()),
    ):
        lines += [f"# TYPE {name} gauge", f"{name} {value}"]
    lines += ["# TYPE nostrain_engine_starts_total counter", f"nostrain_engine_starts_total {status.engine_starts}"]
    return "\n".join(lines) + "\n"


def escaped(label: str) -> str:
    """A label value."""
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
