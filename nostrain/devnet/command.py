"""`nostrain-ctl devnet`: run the main job and report. Exit code 0 only if every round closed and everyone computed the same states."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
import trio
from rich.console import Console

from nostrain.devnet import cheated, purse, reference, report, table
from nostrain.devnet.export import export_to
from nostrain.devnet.layout import Options, cheats_of, longest_socket
from nostrain.devnet.regtest.programs import missing
from nostrain.devnet.supervisor import Devnet, cancelled_by_signals, open_devnet
from nostrain.errors import ConfigError, NostrainError, Unavailable
from nostrain.protocol.dataset import MANIFEST_FILE, DatasetManifest
from nostrain.protocol.engines import EngineKind

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
MAX_SOCKET_PATH = 107
ENGINE_MODULES: Final[dict[EngineKind, str]] = {"pytorch": "torch", "mlx": "mlx"}
"""What an engine needs: modules, and extras, of this name."""


@dataclass(frozen=True)
class Outputs:
    """Where things go. `root` holds every participant's folder; it is kept after a success only if `keep`."""

    root: Path
    keep: bool
    json_path: Path | None = None
    with_reference: bool = False
    export: Path | None = None


def run(options: Options, *, keep: Path | None, json_path: Path | None, with_reference: bool, export: Path | None = None) -> int:
    """Run to the end; the process's exit code. After a failure everything is kept, and the person is told where."""
    root = keep.absolute() if keep is not None else Path(tempfile.mkdtemp(prefix="nostrain-devnet-"))
    problem = usage_problem(options, root, json_path, export)
    if problem is not None:
        print(f"nostrain-ctl devnet: {problem}", file=sys.stderr)
        code = EXIT_USAGE
    else:
        code = trio.run(supervise, options, Outputs(root, keep is not None, json_path, with_reference, export))
    if keep is None and code != EXIT_FAILED:
        shutil.rmtree(root, ignore_errors=True)
    return code


def usage_problem(options: Options, root: Path, json_path: Path | None, export: Path | None = None) -> str | None:
    """What would only fail after minutes of work, found before it begins. Makes the folder `root`."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        empty = not any(root.iterdir())
    except OSError as error:
        return f"--keep {root}: {error.strerror}"
    if options.relay_urls and options.relays != 1:
        return "--relay: a devnet uses the relays that it is given, or starts --relays of its own; leave one of them out"
    for url in options.relay_urls:
        if urlsplit(url).scheme not in ("ws", "wss") or not urlsplit(url).hostname:
            return f"--relay {url}: not the address of a relay, which begins with ws:// or wss://"
    if options.text is not None and not options.text.is_dir():
        return f"--text {options.text}: not a folder"
    if options.dataset is not None and options.text is not None:
        return "--data: a run learns from one of --data and --text; leave the other out"
    if options.dataset is not None and not (options.dataset / MANIFEST_FILE).is_file():
        return f"--data {options.dataset}: no {MANIFEST_FILE} in it; `nostrain-ctl data build` makes such a folder"
    if options.init is not None and not (options.init / "config.json").is_file():
        return f"--init {options.init}: no config.json in it; a pretrained checkpoint is a folder as Hugging Face has them"
    if options.cheaters and not options.paid:
        return "--cheaters: where nobody is paid there is nothing to be gained by cheating; leave out --unpaid"
    if options.lightning == "regtest" and not options.paid:
        return "--lightning regtest: where nobody is paid no Lightning node is needed; leave out --unpaid"
    if options.lightning == "regtest" and (absent := missing()):
        return f"--lightning regtest: {', '.join(absent)} not found on PATH; --lightning simnet needs no programs"
    for kind in options.engines:
        if find_spec(ENGINE_MODULES[kind]) is None:
            return f"--engines {kind}: {ENGINE_MODULES[kind]} is not installed; the extra {ENGINE_MODULES[kind]} brings it"
    try:
        cheats_of(options)
    except ConfigError as error:
        return str(error)
    if not empty:
        return f"--keep {root}: the folder is not empty; a devnet starts from nothing"
    if longest_socket(root, options) > MAX_SOCKET_PATH:
        limit = f"whose paths may have {MAX_SOCKET_PATH} bytes"
        return f"{root}: too long for the control sockets in it, {limit}; choose a shorter --keep or TMPDIR"
    if json_path is not None and not os.access(json_path.absolute().parent, os.W_OK):
        return f"--json {json_path}: its folder is not there or cannot be written"
    if export is not None and os.path.lexists(export):
        return f"--export {export}: is there already; nothing is overwritten"
    if export is not None and not os.access(export.absolute().parent, os.W_OK):
        return f"--export {export}: its folder is not there or cannot be written"
    return None


async def supervise(options: Options, outputs: Outputs) -> int:
    """The run under supervision, from the first process to the report."""
    begin = trio.current_time()

    def tell(line: str) -> None:
        print(f"{trio.current_time() - begin:7.1f} s  {line}", flush=True)

    code = EXIT_INTERRUPTED
    async with cancelled_by_signals():
        try:
            code = await main_job(options, outputs, tell)
        except* (NostrainError, OSError) as group:
            for error in flatten(group):
                print(f"nostrain-ctl devnet: {error}", file=sys.stderr)
            print(where(outputs), file=sys.stderr)
            code = EXIT_FAILED
    return code


def where(outputs: Outputs) -> str:
    """Where a person finds what the daemons wrote."""
    return f"logs, configurations and journals: {outputs.root}/<name>/"


def flatten(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    """The errors in a group."""
    return [leaf for error in group.exceptions for leaf in (flatten(error) if isinstance(error, BaseExceptionGroup) else [error])]


async def main_job(options: Options, outputs: Outputs, tell: Callable[[str], None]) -> int:
    """Start, watch, stop, compare, report."""
    root = outputs.root
    problem: str | None = None
    async with open_devnet(root, options, tell) as devnet:
        if options.dataset is not None:
            held_out = msgspec.json.decode((options.dataset / MANIFEST_FILE).read_bytes(), type=DatasetManifest).validation
            devnet.observer.tokens_per_byte = held_out.tokens / held_out.text_bytes
        try:
            await devnet.wait_for(lambda: devnet.observer.over)
        except Unavailable as error:
            problem = str(error)
        extra: dict[str, Any] = {"daemons": await statuses(devnet)}
        if devnet.lightning is not None:
            money = devnet.lightning.purse
            due = {} if problem else purse.shares_due(report.build(devnet.observer, devnet.participants, {}))
            extra["balances"] = purse.as_report(money.before, await money.settled(due), await money.fees())
            extra["lightning"] = money.kind
    if outputs.with_reference and problem is None:
        tell("repeating the run in one process")
        extra["reference"] = await reference.compare(devnet.observer, data_folders(root, options), root / "reference")
    wanted = ([outputs.export] if outputs.export else []) + ([root / "model"] if outputs.keep else [])
    made = await export_to(wanted, devnet.observer, root / "coordinator" / "blobs")
    extra["model"] = str(made[0]) if made else None
    return conclude(devnet, extra, problem, outputs)


def data_folders(root: Path, options: Options) -> tuple[Path, ...]:
    """Where the files are that the run was made of."""
    made = root / "coordinator" / "work" / "run"
    return (made,) if options.dataset is None else (made, options.dataset)


async def statuses(devnet: Devnet) -> dict[str, Any]:
    """What each daemon counted, by name; None for one that does not answer."""
    found: dict[str, Any] = dict.fromkeys(one.name for one in devnet.participants)

    async def ask(name: str) -> None:
        try:
            status = (await devnet.status(name)).status
        except Unavailable:
            return
        if status is not None:
            found[name] = {"counters": status.counters, "engine_starts": status.engine_starts}

    async with trio.open_nursery() as nursery:
        for participant in devnet.participants:
            nursery.start_soon(ask, participant.name)
    return found


def conclude(devnet: Devnet, extra: dict[str, Any], problem: str | None, outputs: Outputs) -> int:
    """Table, JSON, where everything is, verdict."""
    console = Console(width=min(table.WIDTH, Console().width) if sys.stdout.isatty() else table.WIDTH)
    data = report.build(devnet.observer, devnet.participants, extra)
    problems = ([problem] if problem else []) + report.agreement(devnet.observer)
    problems += devnet.lightning.complaints if devnet.lightning else []
    if data["paid"]:
        data["cheaters"] = cheated.entries(data, devnet.observer, devnet.participants)
        problems += purse.mismatches(data) + cheated.problems(data)
    if data["rounds"]:
        table.show(data, console)
        if data["paid"]:
            table.show_money(data, console)
        if data.get("cheaters"):
            table.show_cheaters(data, console)
    if "reference" in extra:
        compared = extra["reference"]["rounds"]
        differing = [str(entry["round"]) for entry in compared if not entry["match"]]
        print(f"reference loop: {len(compared) - len(differing)} of {len(compared)} rounds have the same digest")
        problems += [f"the reference loop differs in round {', '.join(differing)}"] if differing else []
    data["faults"] = [*data["faults"], *problems]
    if outputs.json_path is not None:
        report.write(data, outputs.json_path)
        print(f"report: {outputs.json_path}")
    if extra.get("model"):
        print(f"model: {extra['model']} (AutoModelForCausalLM.from_pretrained opens it)")
    if problems or outputs.keep:
        print(where(outputs))
    for line in problems:
        print(f"FAILED: {line}")
    if not problems:
        count = len(devnet.participants) - len(devnet.observer.silent)
        print(f"every round closed, and all {count} participants that speak computed the same checkpoint in each")
        if data.get("cheaters"):
            print(f"{len(data['cheaters'])} cheat, and none of their work was worth its fees")
    return EXIT_FAILED if problems else 0
