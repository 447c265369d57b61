"""Composition: a configuration becomes adapters, the adapters become ports, the ports carry a node."""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import trio

import nostrain
from nostrain.blobs.app import blossom_app
from nostrain.blobs.client import BlossomClient
from nostrain.blobs.policy import BlobLimits
from nostrain.blobs.store import BlobStore
from nostrain.config.schema import DaemonConfig
from nostrain.core.round import phase
from nostrain.core.rows import Duty, Identity, Replica, Round, Run, RunPlan, Submission
from nostrain.daemon.clock import OsEntropy, SystemClock
from nostrain.daemon.ports import Ports
from nostrain.daemon.runtime import Runtime, outstanding_ids
from nostrain.engine import EngineProcess, EngineSettings
from nostrain.errors import ConfigError
from nostrain.http.server import serve
from nostrain.journal.sqlite import SqliteJournal
from nostrain.keys.oracle import DlcOracle
from nostrain.keys.signer import NostrSigner
from nostrain.keys.store import open_root
from nostrain.nostr.pool import RelayPool, open_pool
from nostrain.protocol.messages import Commitment
from nostrain.units import Digest, Pubkey
from nostrain.wire.control import RunStatus, Status

log = logging.getLogger("nostrain.daemon")

NODE_ROLES = ("coordinator", "worker", "validator")


@dataclass
class Node:
    """A composed node: `runtime` is None in a daemon that only serves blobs."""

    config: DaemonConfig
    signer: NostrSigner
    engine: EngineProcess
    pool: RelayPool | None
    runtime: Runtime | None
    blobs_url: str | None

    def status(self) -> Status:
        """What `nostrain-ctl status` shows."""
        rows = self.runtime.state.rows if self.runtime else {}
        run, replica = rows.get("run"), rows.get("replica")
        run_status, work, duty = None, None, None
        if isinstance(run, Run):
            round_ = rows.get(f"round/{run.open}")
            current = phase(round_, run).value if isinstance(round_, Round) else ("finished" if run.finished else "between rounds")
            run_status = RunStatus(run.id, run.manifest.name, run.coordinator, run.round, run.manifest.rounds, current, run.halted)
            work, duty = rows.get(f"work/{run.open}"), rows.get(f"duty/{run.open}")
        return Status(
            name=self.config.name,
            pubkey=self.signer.pubkey,
            roles=self.config.roles,
            version=nostrain.__version__,
            relays_connected=self.pool.connected if self.pool else (),
            run=run_status,
            state_id=replica.state_id if isinstance(replica, Replica) else None,
            replica=replica.state.value if isinstance(replica, Replica) else None,
            submission=work.state.value if isinstance(work, Submission) else None,
            duty=duty.state.value if isinstance(duty, Duty) else None,
            outstanding=tuple(outstanding_ids(self.runtime.state)) if self.runtime else (),
            counters={
                **(self.runtime.counters if self.runtime else {}),
                **{f"relay {k}": v for k, v in (self.pool.counts if self.pool else {}).items()},
            },
            engine_starts=self.engine.starts,
            blobs_url=self.blobs_url,
        )


class Enrolled:
    """Upload policy of our blob server: ourselves, and workers of the run that committed to something; each blob no larger than the run allows."""

    def __init__(self, me: Pubkey) -> None:
        self._me = me
        self.runtime: Runtime | None = None

    def allow(self, pubkey: Pubkey, digest: Digest, size: int) -> str | None:
        """As `blobs.policy.UploadPolicy`."""
        if pubkey == self._me:
            return None
        run = self.runtime.state.rows.get("run") if self.runtime else None
        if not isinstance(run, Run):
            return "this server follows no run yet"
        if size > run.manifest.max_delta_bytes:
            return f"{size} bytes, {run.manifest.max_delta_bytes} is the limit of the run"
        return None if self._committed(pubkey) else "you have no commitment in a recent round of the run"

    def _committed(self, pubkey: Pubkey) -> bool:
        assert self.runtime is not None
        rounds = (row for row in self.runtime.state.rows.values() if isinstance(row, Round))
        entries: list[tuple[Pubkey, int, Commitment]] = [entry for row in rounds for entry in row.commitments.values()]
        return any(author == pubkey for author, _, _ in entries)


@asynccontextmanager
async def open_node(config: DaemonConfig) -> AsyncIterator[Node]:
    """Open everything the configuration asks for. Raises ConfigError with what to mend; closes all of it in reverse order."""
    data = config.data_path
    root = open_root(data)
    signer, clock = NostrSigner(root), SystemClock()
    async with AsyncExitStack() as stack:
        store = BlobStore(data / "blobs", clock)
        stack.callback(store.close)
        policy = Enrolled(signer.pubkey)
        url = await open_blob_server(stack, config, store, policy, clock) if "blobs" in config.roles else None
        settings = EngineSettings(python=config.engine.python, threads=config.engine.threads, job_timeout_s=config.engine.job_timeout_s)
        engine = await stack.enter_async_context(EngineProcess.open(settings))
        node = Node(config, signer, engine, None, None, url)
        if any(role in NODE_ROLES for role in config.roles):
            servers = config.blobs.servers or ((url,) if url else ())
            local = [base for base in (*config.blobs.servers, url) if base is not None] if url else []
            client = await stack.enter_async_context(BlossomClient(store, servers, signer, clock, local_urls=local))
            oracle = DlcOracle(root, data) if "validator" in config.roles else None
            if oracle is not None:
                stack.callback(oracle.close)
            journal = stack.enter_context(SqliteJournal.open(data / "journal.sqlite"))
            node.pool = await stack.enter_async_context(open_pool(config.relays, signer=signer, rng=random.Random()))
            ports = Ports(clock, OsEntropy(), signer, oracle, node.pool, client, engine, journal)
            node.runtime = policy.runtime = Runtime(ports, identity(config, signer.pubkey, servers))
        yield node


async def open_blob_server(stack: AsyncExitStack, config: DaemonConfig, store: BlobStore, policy: Enrolled, clock: SystemClock) -> str:
    """Serve the store; the URL it is bound to."""
    limits = BlobLimits(max_blob=config.blobs.max_bytes, quota=config.blobs.quota)
    app = blossom_app(store, policy, clock, limits=limits)
    nursery = await stack.enter_async_context(trio.open_nursery())
    stack.callback(nursery.cancel_scope.cancel)
    bound: str = await nursery.start(serve, app, config.blobs.bind)
    log.info("blobs are served on %s", bound)
    return bound


def identity(config: DaemonConfig, pubkey: Pubkey, servers: tuple[str, ...]) -> Identity:
    """The node that the configuration describes; makes its work folder."""
    work_dir = (config.data_path / "work").absolute()
    work_dir.mkdir(exist_ok=True)
    roles: list[Literal["coordinator", "worker", "validator"]] = []
    for role in config.roles:
        if role != "blobs":
            roles.append(role)
    return Identity(
        pubkey=pubkey,
        name=config.name,
        roles=tuple(roles),
        work_dir=str(work_dir),
        join_run=None if config.join.run == "any" else config.join.run,  # type: ignore[arg-type]
        join_coordinator=config.join.coordinator,  # type: ignore[arg-type]
        plan=run_plan(config, servers, work_dir),
    )


def run_plan(config: DaemonConfig, servers: tuple[str, ...], work_dir: Path) -> RunPlan | None:
    """The run that a coordinator is to publish. Raises ConfigError for one that this version cannot settle."""
    if config.coordinator is None:
        return None
    run = config.coordinator.run
    if run.settlement.mode != "none":
        reason = "this version has no Lightning client yet"
        raise ConfigError("coordinator.run.settlement.mode", run.settlement.mode, reason, 'Set it to "none"')
    return RunPlan(
        name=run.name,
        rounds=run.rounds,
        min_workers=run.min_workers,
        min_validators=run.min_validators,
        threshold=run.threshold,
        text=run.text or None,
        seed=run.seed,
        shard_bytes=run.shard_bytes,
        validation_bytes=run.validation_bytes,
        blob_servers=servers,
        work_dir=str(work_dir),
        timing=run.timing.spec(),
        settlement=run.settlement.spec(),
    )
