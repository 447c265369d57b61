"""Who is in a devnet, and the files that each participant starts from: a config, a data folder, a key."""

from __future__ import annotations

import json
import os
import secrets
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from nostrain.config.scoring import ScoringConfig
from nostrain.devnet.cheaters import USELESS, WORKERS, Cheat
from nostrain.errors import ConfigError
from nostrain.hashes import tagged_hash
from nostrain.keys.signer import NostrSigner
from nostrain.keys.store import open_root
from nostrain.protocol.engines import DEVICES, EngineKind
from nostrain.protocol.manifest import SAT, ScoringSpec, TimingSpec, TrainingSpec
from nostrain.units import Pubkey

LEVEL_MSAT = 100_000
"""What one level pays for one round."""
FEE_MSAT = 20_000
"""The submission fee: 5 % of what an honest worker's four levels pay in a round (design section 12)."""
FINE_TUNING_PPB = 300_000
"""The learning rate of a run that begins with a pretrained checkpoint: a tenth of what a fresh one is trained with."""

Role = Literal["coordinator", "validator", "worker"]
LightningKind = Literal["simnet", "regtest"]


@dataclass(frozen=True)
class Options:
    """What `nostrain-ctl devnet` was asked for."""

    rounds: int = 8
    workers: int = 4
    validators: int = 3
    relays: int = 1
    lasting_relays: int = 0
    """How many of them, the first ones, still have their events after a restart; the others forget."""
    relay_urls: tuple[str, ...] = ()
    """Relays that are there already, instead of any of its own: other runs may be on them, and strangers."""
    seed: int = 0
    text: Path | None = None
    dataset: Path | None = None
    init: Path | None = None
    model: str = "tiny"
    threads: int = 1
    paid: bool = True
    """Whether the work is paid."""
    lightning: LightningKind = "simnet"
    """What it is paid over: the simnet, or real nodes on regtest."""
    epoch_rounds: int = 1
    """How many rounds are escrowed and paid together."""
    delay: int = 0
    """1: deltas are trained while those of the round before are scored."""
    scoring: ScoringConfig | None = None
    """How much validators read, when not the defaults."""
    timing: TimingSpec | None = None
    """Deadlines of the run's phases, when not the defaults."""
    stall_s: float | None = None
    """Longest silence on the relay, when not what follows from the deadlines."""
    engines: tuple[EngineKind, ...] = ("pytorch",)
    """What the participants of each role train and score with, in turn."""
    cheaters: tuple[Cheat, ...] = ()
    """Cheats to be played, each by the last participants of its role that play none yet."""


@dataclass(frozen=True)
class Participant:
    """One daemon of the devnet."""

    name: str
    role: Role
    folder: Path
    pubkey: Pubkey
    cheat: Cheat | None = None
    """What it does instead of what is right."""

    @property
    def config(self) -> Path:
        """Its TOML file."""
        return self.folder / "nostraind.toml"

    @property
    def control(self) -> Path:
        """Its control socket."""
        return self.folder / "control.sock"

    @property
    def log(self) -> Path:
        """Where its standard error goes."""
        return self.folder / "nostraind.log"


def relays_of(options: Options) -> list[str]:
    """Names of the relays."""
    return [f"relay-{number}" for number in range(1, (len(options.relay_urls) or options.relays) + 1)]


def roles_of(options: Options) -> list[tuple[str, Role]]:
    """Name and role of every participant, in the order to start them."""
    roles: list[tuple[str, Role]] = [("coordinator", "coordinator")]
    roles += [(f"validator-{index}", "validator") for index in range(1, options.validators + 1)]
    roles += [(f"worker-{index}", "worker") for index in range(1, options.workers + 1)]
    return roles


def cheats_of(options: Options) -> dict[str, Cheat]:
    """Who cheats, by name, and how. Raises ConfigError when there are not enough participants to be cheated."""
    free: dict[Role, list[str]] = {"coordinator": [], "validator": [], "worker": []}
    for name, role in roles_of(options):
        free[role].append(name)
    found: dict[str, Cheat] = {}
    for cheat in options.cheaters:
        needed: Role = "worker" if cheat in WORKERS else "coordinator" if cheat == "bad-payer" else "validator"
        for _ in range(WORKERS.get(cheat, 1)):
            if not free[needed]:
                raise ConfigError("--cheaters", cheat, f"there is no {needed} left for it", f"Ask for more {needed}s")
            found[free[needed].pop()] = cheat
    scored = sum(cheat in USELESS for cheat in found.values())
    if options.cheaters and len(free["worker"]) <= scored:
        reason = f"{len(free['worker'])} honest workers beside {scored} whose deltas are worth nothing: the honest have to be more"
        raise ConfigError("--cheaters", ",".join(options.cheaters), reason, "Ask for more workers")
    if "silent-validator" in found.values() and len(free["validator"]) < threshold(options):
        raise ConfigError("--cheaters", "silent-validator", "too few validators are left to attest", "Ask for more validators")
    return found


def parse_engines(text: str) -> tuple[EngineKind, ...]:
    """Names separated by commas. Raises ConfigError."""
    found: list[EngineKind] = []
    for name in (part.strip() for part in text.split(",")):
        known = next((kind for kind in DEVICES if kind == name), None)
        if known is None:
            raise ConfigError("--engines", name, "no such engine", f"Choose from {','.join(DEVICES)}")
        found.append(known)
    return tuple(found)


def engine_of(options: Options, name: str) -> EngineKind:
    """The engine of the participant `name`: the first of a role has the first of `options.engines`, the second the second, and so on round."""
    number = name.rpartition("-")[2]
    return options.engines[(int(number) - 1 if number.isdigit() else 0) % len(options.engines)]


def threshold(options: Options) -> int:
    """How many validators have to agree: a majority."""
    return options.validators // 2 + 1


def pool_msat(options: Options) -> int:
    """What an epoch pays if everybody reaches every level."""
    return LEVEL_MSAT * len(ScoringSpec().levels_ppm) * options.workers * options.epoch_rounds


def longest_socket(root: Path, options: Options) -> int:
    """Bytes of the longest path of a Unix socket under `root`: the system allows 107."""
    sockets = ((root / name / "control.sock", lightning_socket(root, options.lightning, name)) for name, _ in roles_of(options))
    return max(len(os.fsencode(path)) for pair in sockets for path in pair)


def lightning_socket(root: Path, kind: LightningKind, name: str) -> Path:
    """Where the participant's node is to be asked."""
    return root / kind / name / "lightning-rpc"


def free_port() -> int:
    """A TCP port on loopback that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def lay_out(root: Path, options: Options, relays: Sequence[str]) -> list[Participant]:
    """Make every participant's folder, key and config under `root`; the coordinator first, in the order to start them. `relays` are URLs.

    Keys follow from the seed, so that a devnet can be repeated: they are worth nothing anywhere else. On relays that are not its own a devnet has
    fresh ones, which nobody knows and no earlier run there was signed with, and everybody follows its coordinator alone.
    """
    blobs = f"127.0.0.1:{free_port()}"
    participants, cheats = [], cheats_of(options)
    for name, role in roles_of(options):
        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        if options.relay_urls:
            secret = open_root(folder, secrets.token_bytes)
        else:
            secret = open_root(folder, lambda size, name=name: devnet_secret(options.seed, name)[:size])  # type: ignore[misc]
        participants.append(Participant(name, role, folder, NostrSigner(secret).pubkey, cheats.get(name)))
    validators = [one.pubkey for one in participants if one.role == "validator"]
    for participant in participants:
        join = (
            f"\n[join]\ncoordinator = {quoted(participants[0].pubkey)}\n"
            if options.relay_urls and participant.role != "coordinator"
            else ""
        )
        participant.config.write_text(config_text(participant, options, relays, blobs, validators) + join)
    return participants


def devnet_secret(seed: int, name: str) -> bytes:
    """A participant's root secret: public by construction, for devnets only."""
    return tagged_hash("nostrain/devnet/secret", str(seed).encode(), b"/", name.encode())


def quoted(value: str | Sequence[str]) -> str:
    """A string, or a list of them, in TOML. JSON's notation, but TOML knows no pairs of surrogates."""
    return json.dumps(value, ensure_ascii=False)


def config_text(participant: Participant, options: Options, relays: Sequence[str], blobs: str, validators: Sequence[Pubkey]) -> str:
    """The participant's whole configuration file. `validators` are those of the run, whom the coordinator is told."""
    roles = ["coordinator", "blobs"] if participant.role == "coordinator" else [participant.role]
    lines = [
        f"name = {quoted(participant.name)}",
        f"data_dir = {quoted(str(participant.folder))}",
        f"roles = {quoted(roles)}",
        f"relays = {quoted(relays)}",
        "private_addresses = true",
        "",
        "[engine]",
        f"kind = {quoted(engine_of(options, participant.name))}",
        'device = "cpu"',
        f"threads = {options.threads}",
    ]
    if options.paid:
        node = lightning_socket(participant.folder.parent, options.lightning, participant.name)
        lines += ["", "[lightning]", f"socket = {quoted(str(node))}"]
    if participant.role == "coordinator":
        lines += [
            "",
            "[blobs]",
            f"bind = {quoted(blobs)}",
            f"servers = {quoted([f'http://{blobs}'])}",
            "",
            "[coordinator.run]",
            'name = "devnet"',
            f"rounds = {options.rounds}",
            f"text = {quoted(str(options.text.absolute()) if options.text else '')}",
            f"dataset = {quoted(str(options.dataset.absolute()) if options.dataset else '')}",
            f"init = {quoted(str(options.init.absolute()) if options.init else '')}",
            f"learning_rate_ppb = {FINE_TUNING_PPB if options.init else TrainingSpec().learning_rate_ppb}",
            f"model = {quoted(options.model)}",
            f"seed = {options.seed}",
            f"min_workers = {options.workers}",
            f"min_validators = {options.validators}",
            f"threshold = {threshold(options)}",
            f"delay = {options.delay}",
            f"validators = {quoted(validators)}",
        ]
        if options.paid:
            lines += ["", "[coordinator.run.settlement]", 'mode = "hold"', f"pool_sat = {pool_msat(options) // SAT}"]
            # No chain here has fees that a level would have to be worth: the simnet has none, regtest's coins cost nothing.
            lines += [
                f"slots = {options.workers}",
                f"epoch_rounds = {options.epoch_rounds}",
                f"fee_sat = {FEE_MSAT // SAT}",
                "feerate_perkb = 0",
            ]
        if options.scoring is not None:
            lines += ["", "[coordinator.run.scoring]"]
            lines += [f"{key} = {value}" for key, value in msgspec.structs.asdict(options.scoring).items()]
        timing = options.timing or (cheated_timing(options) if options.cheaters else None)
        if timing is not None:
            lines += ["", "[coordinator.run.timing]"]
            lines += [f"{key} = {value}" for key, value in msgspec.structs.asdict(timing).items()]
    return "\n".join(lines) + "\n"


def cheated_timing(options: Options) -> TimingSpec:
    """Shorter deadlines than the defaults: whoever does not do its part is waited for until they are over, in every round."""
    workers = options.workers
    return TimingSpec(commit_s=20 + 4 * workers, acknowledge_s=6, reveal_s=6 + workers, verdict_s=30 + 6 * workers, attest_s=6, grace_s=2)
