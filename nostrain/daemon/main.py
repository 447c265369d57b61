"""`nostraind --config FILE`: run a node until SIGTERM, SIGINT or `nostrain-ctl stop`.

Exit codes: 0 after a stop, 78 (EX_CONFIG) when the configuration cannot be used, 1 when the program cannot go on and must be restarted from
its journal.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import traceback
from collections.abc import AsyncIterator
from pathlib import Path

import click
import trio

import nostrain
from nostrain.config.load import load_config
from nostrain.config.schema import DaemonConfig
from nostrain.daemon.compose import NODE_ROLES, open_node
from nostrain.daemon.control import Control
from nostrain.daemon.feeds import run_feeds
from nostrain.daemon.notify import notify
from nostrain.daemon.runners import Perform
from nostrain.errors import EX_CONFIG, ConfigError, NostrainError

log = logging.getLogger("nostrain.daemon")

EXIT_FAILED = 1


@click.command()
@click.option("--config", "path", type=click.Path(path_type=Path), required=True, help="The TOML file of this daemon.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override one key of the file; may be repeated.")
@click.version_option(nostrain.__version__)
def main(path: Path, overrides: tuple[str, ...]) -> None:
    """Run a nostrain node: coordinator, worker, validator or blob server, as its configuration says."""
    try:
        config = load_config(path, overrides, os.environ)
        set_up_logging(config)
        trio.run(run, config)
    except (Exception, BaseExceptionGroup) as error:
        log.debug("how it ended", exc_info=True)
        code, lines = explain(error)
        for line in lines:
            print(f"nostraind: {one_line(line)}", file=sys.stderr)
        raise SystemExit(code) from None


def explain(error: BaseException) -> tuple[int, list[str]]:
    """The exit code and what an operator needs to read: a line for each cause, without a traceback (log_level = "debug" shows it)."""
    causes = leaves(error)
    wrong = [cause for cause in causes if isinstance(cause, ConfigError)]
    if wrong:
        return EX_CONFIG, [str(cause) for cause in wrong]
    return EXIT_FAILED, [described(cause) for cause in causes]


def leaves(error: BaseException) -> list[BaseException]:
    """The errors in a group, without the groups."""
    return [leaf for inner in error.exceptions for leaf in leaves(inner)] if isinstance(error, BaseExceptionGroup) else [error]


def described(error: BaseException) -> str:
    """One line; a bug is told with the place where it happened."""
    said = f"{type(error).__name__}: {error}"
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, NostrainError) or not frames:
        return said
    place = next((frame for frame in reversed(frames) if "nostrain" in Path(frame.filename).parts), frames[-1])
    return f"{said} (in {place.name}, {Path(place.filename).name}:{place.lineno})"


def one_line(text: str) -> str:
    """`text` without what could end the line or command a terminal: part of it may be a stranger's."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


class OneLine(logging.Formatter):
    """One line an event, whatever its arguments contain; only a traceback may follow it."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """As `logging.Formatter`, with a clean message."""
        record.message = one_line(record.message)
        return super().formatMessage(record)


def set_up_logging(config: DaemonConfig) -> None:
    """One line an event on standard error: time, level, logger, text. Libraries speak only when something is wrong."""
    handler = logging.StreamHandler()
    handler.setFormatter(OneLine("%(asctime)s %(levelname).1s %(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    logging.getLogger("nostrain").setLevel(config.log_level.upper())


async def run(config: DaemonConfig, runner: Perform | None = None) -> None:
    """Serve until told to stop; a signal that comes during the start is obeyed after it. `runner`: as in `Runtime`."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with open_node(config, runner) as node, trio.open_nursery() as nursery:
            control = Control(node.status, node.wallet, node.earnings, node.ledger, node.plan, node.model)
            await nursery.start(control.serve, config.control_path)
            if node.runtime is not None:
                nursery.start_soon(node.runtime.run)
                nursery.start_soon(run_feeds, node.runtime)
                if node.billboard is not None:
                    nursery.start_soon(node.billboard.run)
                if any(role in NODE_ROLES[1:] for role in config.roles):
                    nursery.start_soon(node.engine.warm)
            log.info("%s (%s) runs as %s", config.name, node.pubkey[:8], ", ".join(config.roles))
            notify("READY=1")
            await wait_for_stop(control, signals)
            log.info("stopping")
            notify("STOPPING=1")
            nursery.cancel_scope.cancel()


async def wait_for_stop(control: Control, signals: AsyncIterator[int]) -> None:
    """Return on a signal or a request on the control socket."""
    async with trio.open_nursery() as nursery:

        async def watch_signals() -> None:
            await anext(signals)
            nursery.cancel_scope.cancel()

        nursery.start_soon(watch_signals)
        await control.stop.wait()
        nursery.cancel_scope.cancel()
