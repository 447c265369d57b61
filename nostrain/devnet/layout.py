"""Who is in a devnet, and the files that each participant starts from: a config, a data folder, a key."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from nostrain.hashes import tagged_hash
from nostrain.keys.signer import NostrSigner
from nostrain.keys.store import open_root
from nostrain.protocol.manifest import TimingSpec
from nostrain.units import Pubkey

Role = Literal["coordinator", "validator", "worker"]


@dataclass(frozen=True)
class Options:
    """What `nostrain-ctl devnet` was asked for."""

    rounds: int = 8
    workers: int = 4
    validators: int = 3
    seed: int = 0
    text: Path | None = None
    model: str = "tiny"
    threads: int = 1
    timing: TimingSpec | None = None
    """Deadlines of the run's phases, when not the defaults."""
    stall_s: float | None = None
    """Longest silence on the relay, when not what follows from the deadlines."""


@dataclass(frozen=True)
class Participant:
    """One daemon of the devnet."""

    name: str
    role: Role
    folder: Path
    pubkey: Pubkey

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


def roles_of(options: Options) -> list[tuple[str, Role]]:
    """Name and role of every participant, in the order to start them."""
    roles: list[tuple[str, Role]] = [("coordinator", "coordinator")]
    roles += [(f"validator-{index}", "validator") for index in range(1, options.validators + 1)]
    roles += [(f"worker-{index}", "worker") for index in range(1, options.workers + 1)]
    return roles


def longest_socket(root: Path, options: Options) -> int:
    """Bytes of the longest path of a control socket under `root`: the system allows 107."""
    return max(len(os.fsencode(root / name / "control.sock")) for name, _ in roles_of(options))


def free_port() -> int:
    """A TCP port on loopback that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def lay_out(root: Path, options: Options, relay: str) -> list[Participant]:
    """Make every participant's folder, key and config under `root`; the coordinator first, in the order to start them.

    Keys follow from the seed, so that a devnet can be repeated: they are worth nothing anywhere else.
    """
    blobs = f"127.0.0.1:{free_port()}"
    participants = []
    for name, role in roles_of(options):
        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        secret = open_root(folder, lambda size, name=name: devnet_secret(options.seed, name)[:size])  # type: ignore[misc]
        participant = Participant(name, role, folder, NostrSigner(secret).pubkey)
        participant.config.write_text(config_text(participant, options, relay, blobs))
        participants.append(participant)
    return participants


def devnet_secret(seed: int, name: str) -> bytes:
    """A participant's root secret: public by construction, for devnets only."""
    return tagged_hash("nostrain/devnet/secret", str(seed).encode(), b"/", name.encode())


def quoted(value: str | Sequence[str]) -> str:
    """A string, or a list of them, in TOML. JSON's notation, but TOML knows no pairs of surrogates."""
    return json.dumps(value, ensure_ascii=False)


def config_text(participant: Participant, options: Options, relay: str, blobs: str) -> str:
    """The participant's whole configuration file."""
    roles = ["coordinator", "blobs"] if participant.role == "coordinator" else [participant.role]
    lines = [
        f"name = {quoted(participant.name)}",
        f"data_dir = {quoted(str(participant.folder))}",
        f"roles = {quoted(roles)}",
        f"relays = {quoted([relay])}",
        "",
        "[engine]",
        f"threads = {options.threads}",
    ]
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
            f"model = {quoted(options.model)}",
            f"seed = {options.seed}",
            f"min_workers = {options.workers}",
            f"min_validators = {options.validators}",
            f"threshold = {options.validators // 2 + 1}",
        ]
        if options.timing is not None:
            lines += ["", "[coordinator.run.timing]"]
            lines += [f"{key} = {value}" for key, value in msgspec.structs.asdict(options.timing).items()]
    return "\n".join(lines) + "\n"
