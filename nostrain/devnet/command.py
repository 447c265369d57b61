"""`nostrain-ctl devnet`: run the main job and report. Exit code 0 only if every round closed and everyone computed the same states."""

from __future__ import annotations

import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import trio
from rich.console import Console

from nostrain.devnet import reference, report
from nostrain.devnet.layout import Options
from nostrain.devnet.supervisor import Devnet, cancelled_by_signals, open_devnet
from nostrain.errors import NostrainError, Unavailable

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130


def run(options: Options, *, keep: Path | None, json_path: Path | None, with_reference: bool) -> int:
    """Run to the end; the process's exit code."""
    if options.text is not None and not options.text.is_dir():
        print(f"nostrain-ctl devnet: --text {options.text}: not a folder", file=sys.stderr)
        return 2
    with ExitStack() as stack:
        root = keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nostrain-devnet-")))
        root.mkdir(parents=True, exist_ok=True)
        if any(root.iterdir()):
            print(f"nostrain-ctl devnet: --keep {root}: the folder is not empty; a devnet starts from nothing", file=sys.stderr)
            return 2
        return trio.run(supervise, root.absolute(), options, json_path, with_reference)


async def supervise(root: Path, options: Options, json_path: Path | None, with_reference: bool) -> int:
    """The run under supervision, from the first process to the report."""
    begin = trio.current_time()

    def tell(line: str) -> None:
        print(f"{trio.current_time() - begin:7.1f} s  {line}", flush=True)

    code = EXIT_INTERRUPTED
    async with cancelled_by_signals():
        try:
            code = await main_job(root, options, json_path, with_reference, tell)
        except* NostrainError as group:
            for error in flatten(group):
                print(f"nostrain-ctl devnet: {error}", file=sys.stderr)
            code = EXIT_FAILED
    return code


def flatten(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    """The errors in a group."""
    return [leaf for error in group.exceptions for leaf in (flatten(error) if isinstance(error, BaseExceptionGroup) else [error])]


async def main_job(root: Path, options: Options, json_path: Path | None, with_reference: bool, tell: Any) -> int:
    """Start, watch, stop, compare, report."""
    problem: str | None = None
    async with open_devnet(root, options, tell) as devnet:
        try:
            await devnet.wait_for(
                lambda: devnet.observer.done or (devnet.observer.run is not None and devnet.observer.run.halted is not None)
            )
        except Unavailable as error:
            problem = str(error)
        extra: dict[str, Any] = {"daemons": await statuses(devnet)}
    if with_reference and problem is None:
        tell("repeating the run in one process")
        extra["reference"] = await reference.compare(devnet.observer, root / "coordinator" / "work" / "run", root / "reference")
    return conclude(devnet, extra, problem, json_path)


async def statuses(devnet: Devnet) -> dict[str, Any]:
    """What each daemon counted, by name; None for one that does not answer."""
    found: dict[str, Any] = {}
    for participant in devnet.participants:
        try:
            status = (await devnet.status(participant.name)).status
        except Unavailable:
            status = None
        found[participant.name] = None if status is None else {"counters": status.counters, "engine_starts": status.engine_starts}
    return found


def conclude(devnet: Devnet, extra: dict[str, Any], problem: str | None, json_path: Path | None) -> int:
    """Table, JSON, verdict."""
    console = Console(width=None if sys.stdout.isatty() else 120)
    data = report.build(devnet.observer, devnet.participants, extra)
    problems = ([problem] if problem else []) + report.agreement(devnet.observer)
    if "reference" in extra:
        compared = extra["reference"]["rounds"]
        differing = [str(entry["round"]) for entry in compared if not entry["match"]]
        console.print(f"reference loop: {len(compared) - len(differing)} of {len(compared)} rounds have the same digest")
        problems += [f"the reference loop differs in round {', '.join(differing)}"] if differing else []
    data["faults"] = [*data["faults"], *problems]
    if data["rounds"]:
        report.show(data, console)
    if json_path is not None:
        report.write(data, json_path)
    for line in problems:
        console.print(f"FAILED: {line}", style="bold red", markup=False)
    if not problems:
        console.print(f"every round closed, and all {len(devnet.participants)} participants computed the same checkpoint in each")
    return EXIT_FAILED if problems else 0
