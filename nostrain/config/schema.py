"""What the TOML of a daemon may say, with every default. No secrets: keys live in the data folder, in files of the key holder's own.

Every struct refuses unknown fields. Relative paths are relative to the working directory of the daemon.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from nostrain.config.blobs import BlobsConfig
from nostrain.config.bounds import MAX_SAT, Seconds
from nostrain.config.scoring import ScoringConfig
from nostrain.protocol.engines import Device, EngineKind, Precision
from nostrain.protocol.limits import MAX_EPOCH_ROUNDS, MAX_ROUNDS, MAX_VALIDATORS, MAX_WORKERS
from nostrain.protocol.manifest import SAT, ModelSpec, OuterSpec, Rule, SettlementSpec, TimingSpec, TrainingSpec
from nostrain.units import PPM, Msat, Ppm

Role = Literal["coordinator", "worker", "validator", "blobs"]
Network = Literal["bitcoin", "testnet", "signet", "regtest"]
LogLevel = Literal["debug", "info", "warning", "error"]

ANY: Final = "any"
"""Any run, or any validator: whoever comes."""

MODELS: Final[dict[str, ModelSpec]] = {"tiny": ModelSpec()}
"""The model presets that `[coordinator.run] model` may name."""


class EngineConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[engine]: the process that holds tensors. `python` is the interpreter that runs it, empty for the daemon's own.

    Which devices an engine has: `protocol.engines.DEVICES`.
    """

    kind: EngineKind = "pytorch"
    device: Device = "auto"
    precision: Precision = "auto"
    micro_batch: Annotated[int, Meta(ge=0, le=1 << 20)] = 0
    activation_checkpointing: bool = False
    compile: bool = False
    memory_mb: Annotated[int, Meta(ge=0, le=1 << 30)] = 0
    threads: Annotated[int, Meta(ge=1, le=1024)] = 1
    python: str = ""
    job_timeout_s: Seconds = 3600


class DataConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[data]: how many MB (2²⁰ bytes) of a run's shards a worker or validator keeps; with the role `blobs`, all of them are kept."""

    cache_mb: Annotated[int, Meta(ge=1, le=1 << 30)] = 4096


class WithdrawConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[lightning.withdraw]: our own money goes to the address `to` when there is more than `above_sat` (`core.treasury.policies.WithdrawPolicy`);
    empty: never. `feerate_perkb` 0: lightningd's own estimate.
    """

    to: str = ""
    above_sat: Annotated[int, Meta(ge=0, le=MAX_SAT)] = 0
    keep_sat: Annotated[int, Meta(ge=10_000, le=MAX_SAT)] = 20_000
    reserve_sat: Annotated[int, Meta(ge=25_000, le=MAX_SAT)] = 50_000
    minconf: Annotated[int, Meta(ge=1, le=100)] = 3
    feerate_perkb: Annotated[int, Meta(ge=0, le=10_000_000)] = 0


class LightningConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[lightning]: the lightningd (or simnet node) of this daemon, by its `socket`, or as `node` (`id@host:port`) with the rune in the file
    `rune_file`; none: only runs that are not paid can be joined.

    `network` is what the locks are bound to: as lightningd names it, `bitcoin`, `testnet`, `signet` or `regtest`. `address`: where
    others can reach the node; a worker that sets it publishes it with the node's id, and takes a channel from the coordinator.
    """

    socket: str = ""
    node: str = ""
    rune_file: str = ""
    network: Network = "regtest"
    address: str = ""
    withdraw: WithdrawConfig = WithdrawConfig()
    poll_s: Annotated[float, Meta(ge=0.05, le=60)] = 0.5

    @property
    def given(self) -> bool:
        """Whether there is a node."""
        return bool(self.socket or self.node)


class JoinConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[join]: which run a worker or validator enrols in: its id, its nevent or naddr, whose relays are dialled too, or `any`; with `coordinator`, only
    runs of that public key; with `curators`, only runs whose dataset one of these keys signed."""

    run: str = "any"
    coordinator: str | None = None
    curators: tuple[Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")], ...] = ()


class TimingConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[coordinator.run.timing]: the longest that each phase may last (`protocol.manifest.TimingSpec` has the meaning)."""

    commit_s: Seconds = TimingSpec().commit_s
    acknowledge_s: Seconds = TimingSpec().acknowledge_s
    reveal_s: Seconds = TimingSpec().reveal_s
    verdict_s: Seconds = TimingSpec().verdict_s
    attest_s: Seconds = TimingSpec().attest_s
    grace_s: Seconds = TimingSpec().grace_s

    def spec(self) -> TimingSpec:
        """As the run manifest says it."""
        return TimingSpec(**msgspec.structs.asdict(self))


class SettlementConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[coordinator.run.settlement]: whether and what the run pays (`protocol.manifest.SettlementSpec`).

    `feerate_perkb` (sat per 1000 vB) is not in the manifest: it says which levels are too small to be taken to the chain.
    """

    mode: Literal["none", "hold"] = "none"
    pool_sat: Annotated[int, Meta(ge=0, le=MAX_SAT)] = 0
    slots: Annotated[int, Meta(ge=0, le=MAX_WORKERS)] = 0
    epoch_rounds: Annotated[int, Meta(ge=1, le=MAX_EPOCH_ROUNDS)] = 1
    fee_sat: Annotated[int, Meta(ge=0, le=MAX_SAT)] = 0
    feerate_perkb: Annotated[int, Meta(ge=0, le=10_000_000)] = 1000
    validator_share_ppm: Annotated[int, Meta(ge=0, le=PPM)] = SettlementSpec().validator_share_ppm

    def spec(self, ticket_server: str, network: Network) -> SettlementSpec:
        """As the run manifest says it; tickets are sold at `ticket_server` if there is a fee."""
        server = ticket_server if self.fee_sat else ""
        return SettlementSpec(
            mode=self.mode,
            pool_msat=Msat(self.pool_sat * SAT),
            slots=self.slots,
            epoch_rounds=self.epoch_rounds,
            fee_msat=Msat(self.fee_sat * SAT),
            ticket_server=server,
            network=network,
            validator_share_ppm=Ppm(self.validator_share_ppm),
        )


class OuterConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[coordinator.run.outer]: how the deltas of a round are put together (`protocol.manifest.OuterSpec` has the meaning)."""

    rule: Rule = OuterSpec().rule
    alpha_ppm: Annotated[int, Meta(ge=1, le=64 * PPM)] = OuterSpec().alpha_ppm
    parameter: Annotated[int, Meta(ge=0, le=PPM)] = 0

    def spec(self) -> OuterSpec:
        """As the run manifest says it."""
        return OuterSpec(self.rule, Ppm(self.alpha_ppm), self.parameter)


class RunConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[coordinator.run]: the run that a coordinator publishes when its journal has none. `relays`: where its participants meet, empty for the daemon's own. `text` is a folder, empty for the standard library.

    `dataset` is a folder that `nostrain-ctl data build` made; `text`, `shard_bytes` and `validation_bytes` then say nothing.
    With `curators`, one of these keys must have signed it. `delay` 1: a round's deltas are trained while those of the round before are scored. `init` is a folder with a pretrained checkpoint, to begin with instead of `model`.
    """

    name: Annotated[str, Meta(min_length=1, max_length=64)]
    rounds: Annotated[int, Meta(ge=1, le=MAX_ROUNDS)]
    text: str = ""
    dataset: str = ""
    curators: tuple[Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")], ...] = ()
    model: Literal["tiny"] = "tiny"
    init: str = ""
    learning_rate_ppb: Annotated[int, Meta(ge=1, le=1_000_000_000)] = TrainingSpec().learning_rate_ppb
    seed: Annotated[int, Meta(ge=0, le=(1 << 63) - 1)] = 0
    min_workers: Annotated[int, Meta(ge=1, le=MAX_WORKERS)] = 4
    min_validators: Annotated[int, Meta(ge=1, le=MAX_VALIDATORS)] = 3
    threshold: Annotated[int, Meta(ge=1, le=MAX_VALIDATORS)] = 2
    relays: tuple[str, ...] = ()
    validators: tuple[Annotated[str, Meta(pattern=rf"^([0-9a-f]{{64}}|{ANY})$")], ...] = ()
    shard_bytes: Annotated[int, Meta(ge=4096)] = 512 * 1024
    validation_bytes: Annotated[int, Meta(ge=4096)] = 256 * 1024
    delay: Annotated[int, Meta(ge=0, le=1)] = 0
    outer: OuterConfig = OuterConfig()
    scoring: ScoringConfig = ScoringConfig()
    timing: TimingConfig = TimingConfig()
    settlement: SettlementConfig = SettlementConfig()

    def model_spec(self) -> ModelSpec:
        """The preset that `model` names."""
        return MODELS[self.model]


class ChannelsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[coordinator.channels]: whether the coordinator's node opens channels to workers by itself, and how much that may take
    (`core.treasury.policies.ChannelPolicy`). `feerate_perkb` 0: lightningd's own estimate.
    """

    open: bool = False
    to: Literal["ticket", "enrolled"] = "ticket"
    first_rounds: Annotated[int, Meta(ge=1, le=MAX_ROUNDS)] = 4
    rounds: Annotated[int, Meta(ge=1, le=MAX_ROUNDS)] = 32
    max_total_sat: Annotated[int, Meta(ge=0, le=MAX_SAT)] = 0
    max_day_sat: Annotated[int, Meta(ge=0, le=MAX_SAT)] = 0
    max_channels: Annotated[int, Meta(ge=1, le=MAX_WORKERS)] = MAX_WORKERS
    reserve_sat: Annotated[int, Meta(ge=25_000, le=MAX_SAT)] = 100_000
    minconf: Annotated[int, Meta(ge=1, le=100)] = 3
    feerate_perkb: Annotated[int, Meta(ge=0, le=10_000_000)] = 0
    announce: bool = False


class CoordinatorConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[coordinator]: settings of the role `coordinator`."""

    run: RunConfig
    channels: ChannelsConfig = ChannelsConfig()


class ValidatorConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[validator]: the role has no settings of its own yet beyond [join] and [engine]."""


class WorkerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[worker]: the role has no settings of its own yet beyond [join] and [engine]."""


class DaemonConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file. `control` empty means `control.sock` in the data folder.

    `presence`: whether relays and participants are told every minute that we are here, and at what.
    `private_addresses`: URLs that strangers name (in manifests, reveals, dataset manifests) may lead into private networks and to this machine.
    """

    name: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
    data_dir: Annotated[str, Meta(min_length=1)]
    roles: Annotated[tuple[Role, ...], Meta(min_length=1)]
    relays: tuple[str, ...] = ()
    control: str = ""
    log_level: LogLevel = "info"
    private_addresses: bool = False
    presence: bool = True
    engine: EngineConfig = EngineConfig()
    blobs: BlobsConfig = BlobsConfig()
    data: DataConfig = DataConfig()
    lightning: LightningConfig = LightningConfig()
    join: JoinConfig = JoinConfig()
    coordinator: CoordinatorConfig | None = None
    validator: ValidatorConfig = ValidatorConfig()
    worker: WorkerConfig = WorkerConfig()

    @property
    def in_a_run(self) -> bool:
        """Whether the daemon follows a run: for a role in it, or to serve its blobs."""
        return bool(set(self.roles) - {"blobs"}) or self.blobs.follow

    @property
    def data_path(self) -> Path:
        """The data folder."""
        return Path(self.data_dir)

    @property
    def control_path(self) -> Path:
        """The Unix socket on which `nostrain-ctl` speaks to this daemon."""
        return Path(self.control) if self.control else self.data_path / "control.sock"
