"""Who we are, and what our operator wants of us: the row that every start sets from the configuration."""

from __future__ import annotations

from typing import Literal

import msgspec

from nostrain.core.treasury.policies import ChannelPolicy, WithdrawPolicy
from nostrain.protocol.event import Event
from nostrain.protocol.manifest import OuterSpec, ScoringSpec, SettlementSpec, TimingSpec, TrainingSpec
from nostrain.units import EventId, Pubkey


class RunPlan(msgspec.Struct, frozen=True):
    """What a coordinator was told to run, by its operator. Only `validators` are listed, if any are named: t of them can spend its money.

    `curations` of its dataset go into the manifest.
    """

    name: str
    rounds: int
    min_workers: int
    min_validators: int
    threshold: int
    text: str | None
    seed: int
    shard_bytes: int
    validation_bytes: int
    blob_servers: tuple[str, ...]
    work_dir: str
    scoring: ScoringSpec = ScoringSpec()
    timing: TimingSpec = TimingSpec()
    settlement: SettlementSpec = SettlementSpec()
    validators: tuple[Pubkey, ...] = ()
    relays: tuple[str, ...] = ()
    dataset: str | None = None
    init: str | None = None
    training: TrainingSpec = TrainingSpec()
    curations: tuple[Event, ...] = ()
    outer: OuterSpec = OuterSpec()
    delay: int = 0


class Identity(msgspec.Struct, frozen=True, tag="identity"):
    """Row `node`: who we are and which roles we play, set at every start. An `archive` keeps deltas for those who come later.

    `cache_bytes` of shards are kept at most, where no more are in use; 0: all of them. `address`: where our Lightning node can be reached, if others are to know it. `memory`: bytes
    that the engine may use, 0 if unknown; `checkpointing`: whether it computes activations twice to save some of it. `replicates`: whether we keep
    our own copy of the model's state; a blob server that only has to know what is still needed does not. `machine`: what a worker's speed depends
    on, which is measured again when this is another; empty: there is nothing to measure.
    """

    pubkey: Pubkey
    name: str
    roles: tuple[Literal["coordinator", "worker", "validator"], ...]
    work_dir: str
    network: str = "regtest"
    pays: bool = True
    join_run: EventId | None = None
    join_coordinator: Pubkey | None = None
    join_curators: tuple[Pubkey, ...] = ()
    plan: RunPlan | None = None
    archive: bool = False
    replicates: bool = True
    cache_bytes: int = 0
    engine: str = "pytorch"
    memory: int = 0
    checkpointing: bool = False
    machine: str = ""
    address: str = ""
    channels: ChannelPolicy | None = None
    withdraw: WithdrawPolicy | None = None
