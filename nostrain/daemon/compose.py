"""Composition: a configuration becomes adapters, the adapters become ports, the ports carry a node."""

from __future__ import annotations

import errno
import logging
import os
import random
import sqlite3
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final, Literal

from nostrain.blobs.client import BlossomClient
from nostrain.blobs.tuning import Tuning
from nostrain.config.blobs import PriceConfig
from nostrain.config.runs import joined_run
from nostrain.config.schema import ANY, DaemonConfig, EngineConfig
from nostrain.core.bounds import manifest_problem
from nostrain.core.identity import Identity, RunPlan
from nostrain.core.rows import NodeState, Run
from nostrain.daemon.billboard import Billboard
from nostrain.daemon.blob_server import advertised, open_server
from nostrain.daemon.clock import OsEntropy, SystemClock
from nostrain.daemon.dataset import sources
from nostrain.daemon.machine import engine_machine, engine_memory
from nostrain.daemon.meeting import open_mail, open_relays, told
from nostrain.daemon.money import Money
from nostrain.daemon.own_node import none_left, open_rpc
from nostrain.daemon.policies import channel_policy, withdraw_policy
from nostrain.daemon.ports import Ports
from nostrain.daemon.runners import Perform
from nostrain.daemon.runtime import Runtime
from nostrain.daemon.status import Node
from nostrain.daemon.storage import load_state
from nostrain.daemon.tickets import NodeTickets
from nostrain.daemon.uploads import RunStore, RunUploads
from nostrain.engine import EngineProcess, EngineSettings
from nostrain.errors import ConfigError, Unavailable
from nostrain.http.outbound import outbound
from nostrain.journal.lock import WriterLock
from nostrain.journal.sqlite import SqliteJournal
from nostrain.keys.mailbox import GiftWraps
from nostrain.keys.oracle import DlcOracle
from nostrain.keys.signer import NostrSigner
from nostrain.keys.store import open_root
from nostrain.nostr.server_lists import RelayedServerLists
from nostrain.protocol.manifest import TrainingSpec
from nostrain.units import Pubkey

log = logging.getLogger("nostrain.daemon")

NODE_ROLES = ("coordinator", "worker", "validator")
ENGINE_MODULE: Final = "nostrain.learning"
_PASSING: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE})


@asynccontextmanager
async def open_node(config: DaemonConfig, runner: Perform | None = None) -> AsyncIterator[Node]:
    """Open everything the configuration asks for; close all of it in reverse order. `runner`: as in `Runtime`.

    Raises ConfigError with what to mend; Unavailable when a later start may work, say on a full disk.
    """
    data = config.data_path
    root = open_root(data)
    signer, clock = NostrSigner(root), SystemClock()
    async with AsyncExitStack() as stack:
        with opening(data):
            stack.callback(WriterLock(data / "nostraind.lock").release)
            work_dir = clean_work_dir(data)
            store = RunStore(data / "blobs", clock)
        stack.callback(store.close)
        journal = stack.enter_context(SqliteJournal.open(data / "journal.sqlite")) if config.in_a_run else None
        state = own_state(journal, signer.pubkey) if journal is not None else NodeState()
        if not config.lightning.given:
            none_left(state)
        # The policy knows the journal's state before the first upload is asked for: a refusal is final for whoever gets it.
        sells = config.blobs.prices.upload != PriceConfig()
        policy = RunUploads(signer.pubkey, config.join.coordinator, sells=sells)  # type: ignore[arg-type]
        policy.state = lambda: state
        store.takes_part = policy.takes_part if config.in_a_run else lambda _: False
        rpc = await stack.enter_async_context(open_rpc(config.lightning))
        money = Money(config, root, clock, rpc)
        await money.check()
        book = NodeTickets(lambda: policy.state(), lambda: composed.runtime)
        with opening(data):
            office = money.open_office(stack, book, policy)
        url = await open_server(stack, config, store, policy, clock, office) if "blobs" in config.roles else None
        engine = await stack.enter_async_context(EngineProcess.open(engine_settings(config.engine, work_dir)))
        composed = Node(config, signer.pubkey, engine, blobs_url=url, rpc=rpc)
        if journal is not None:
            servers, ours = advertised(config.blobs.servers, url, config.blobs.url)
            pool = composed.pool = await stack.enter_async_context(open_relays(config, signer, data))
            tickets = await money.ticket_buyer(stack, signer)
            client = BlossomClient(
                store,
                servers,
                signer,
                clock,
                local_urls=ours,
                tickets=tickets,
                purse=money.purse(),
                lists=RelayedServerLists(pool),
                transport=outbound(config.private_addresses, Tuning().connections, (*servers, *ours)),
            )
            await stack.enter_async_context(client)
            oracle = DlcOracle(root, data) if "validator" in config.roles else None
            if oracle is not None:
                stack.callback(oracle.close)
            mail = await stack.enter_async_context(open_mail(pool, GiftWraps(root, clock), clock)) if money.escrows else None
            ports = Ports(clock, OsEntropy(), signer, oracle, pool, client, engine, journal, mail, money.lightning, tickets)
            runtime = composed.runtime = Runtime(
                ports, identity(config, signer.pubkey, servers, work_dir, published="run" in state.rows), state=state, runner=runner
            )
            policy.state = lambda: runtime.state
            if set(config.roles) & set(NODE_ROLES):
                composed.billboard = Billboard(runtime, told(config), random.Random(), present=config.presence, servers=servers)
        yield composed


@contextmanager
def opening(folder: Path) -> Iterator[None]:
    """Trouble with the data folder: what passes by itself is Unavailable, the rest is for the operator to mend."""
    try:
        yield
    except OSError as error:
        if error.errno in _PASSING:
            raise Unavailable(f"data folder {folder}: {error}") from error
        raise ConfigError("data_dir", str(folder), f"cannot be used: {error}", "Check the folder, its owner and its disk") from error
    except sqlite3.OperationalError as error:
        raise Unavailable(f"data folder {folder}: {error}") from error
    except sqlite3.DatabaseError as error:
        raise ConfigError("data_dir", str(folder), f"the index of blobs is damaged: {error}", "Move the folder blobs away") from error


def clean_work_dir(data: Path) -> Path:
    """The folder in which the engine writes, made if need be, without what a killed engine left half-written there."""
    work_dir = (data / "work").absolute()
    work_dir.mkdir(exist_ok=True)
    for leftover in work_dir.glob(".*.tmp"):
        leftover.unlink(missing_ok=True)
    return work_dir


def own_state(journal: SqliteJournal, pubkey: Pubkey) -> NodeState:
    """The journal's state. Raises ConfigError when it is another key's, or in a run of another version: its promises cannot be kept by us."""
    state = load_state(journal.load())
    before = state.rows.get("node")
    if isinstance(before, Identity) and before.pubkey != pubkey:
        reason = f"its journal belongs to the key {before.pubkey[:8]}, its root.key is that of {pubkey[:8]}"
        raise ConfigError("data_dir", "root.key", reason, "Restore the root.key that belongs to the journal, or use an empty data_dir")
    run = state.rows.get("run")
    problem = manifest_problem(run.manifest) if isinstance(run, Run) else None
    if problem is not None:
        reason = f"its run has a manifest that this version does not take: {problem}"
        raise ConfigError("data_dir", "journal.sqlite", reason, "Finish the run with the version that began it, or use an empty data_dir")
    return state


def engine_settings(config: EngineConfig, work_dir: Path) -> EngineSettings:
    """The engine under its guard (`daemon.guard`), so that it neither outlives nor overtakes this daemon."""
    guard = (config.python or sys.executable, "-P", "-m", "nostrain.daemon.guard")
    command = (*guard, str(work_dir / "engine.lock"), str(os.getpid()), ENGINE_MODULE)
    arguments = ["--engine", config.kind, "--device", config.device, "--precision", config.precision]
    arguments += ["--memory-mb", str(engine_memory(config) >> 20)]
    arguments += ["--checkpointing"] * config.activation_checkpointing + ["--compile"] * config.compile
    return EngineSettings(
        threads=config.threads,
        job_timeout_s=config.job_timeout_s,
        command=command,
        arguments=arguments,
        micro_batch=config.micro_batch,
    )


def identity(config: DaemonConfig, pubkey: Pubkey, servers: tuple[str, ...], work_dir: Path, *, published: bool = False) -> Identity:
    """The node that the configuration describes. Once its run is `published`, what that was made of may be gone."""
    roles: list[Literal["coordinator", "worker", "validator"]] = []
    for role in config.roles:
        if role != "blobs":
            roles.append(role)
    joined = joined_run(config)
    return Identity(
        pubkey=pubkey,
        name=config.name,
        roles=tuple(roles),
        work_dir=str(work_dir),
        network=config.lightning.network,
        pays=config.lightning.given,
        join_run=joined.run if joined else None,
        join_coordinator=joined.coordinator if joined else config.join.coordinator,  # type: ignore[arg-type]
        join_curators=tuple(Pubkey(key) for key in config.join.curators),
        plan=run_plan(config, servers, work_dir, published=published),
        archive="blobs" in config.roles and config.blobs.keep_deltas,
        replicates=bool(roles),
        cache_bytes=0 if "blobs" in config.roles else config.data.cache_mb << 20,
        engine=config.engine.kind,
        memory=engine_memory(config.engine),
        checkpointing=config.engine.activation_checkpointing,
        machine=engine_machine(config.engine),
        address=config.lightning.address,
        channels=channel_policy(config),
        withdraw=withdraw_policy(config),
    )


def run_plan(config: DaemonConfig, servers: tuple[str, ...], work_dir: Path, *, published: bool = False) -> RunPlan | None:
    """The run that a coordinator is to publish, or has. Raises ConfigError for one that this version cannot settle, or whose text is not there."""
    if config.coordinator is None:
        return None
    run = config.coordinator.run
    if run.settlement.mode != "none" and not config.lightning.given:
        reason = "a run that pays needs a Lightning node"
        raise ConfigError("coordinator.run.settlement.mode", run.settlement.mode, reason, 'Set lightning.socket, or mode = "none"')
    curations = () if published else sources(run)
    return RunPlan(
        name=run.name,
        rounds=run.rounds,
        min_workers=run.min_workers,
        min_validators=run.min_validators,
        threshold=run.threshold,
        validators=tuple(Pubkey(key) for key in run.validators if key != ANY),
        text=run.text or None,
        dataset=str(Path(run.dataset).absolute()) if run.dataset else None,
        curations=curations,
        init=str(Path(run.init).absolute()) if run.init else None,
        training=TrainingSpec(learning_rate_ppb=run.learning_rate_ppb),
        seed=run.seed,
        shard_bytes=run.shard_bytes,
        validation_bytes=run.validation_bytes,
        blob_servers=servers,
        relays=run.relays or told(config),
        work_dir=str(work_dir),
        outer=run.outer.spec(),
        delay=run.delay,
        scoring=run.scoring.spec(),
        timing=run.timing.spec(),
        settlement=run.settlement.spec(servers[0] if servers else "", config.lightning.network),
    )
