"""`nostraind --config FILE`: run a node until SIGTERM, SIGINT or `nostrain-ctl stop`.

Exit codes: 0 after a stop, 78 (EX_CONFIG) when the configuration cannot be used, 1 when the program contradicted itself and must be
restarted from its journal.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
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
from nostrain.errors import EX_CONFIG, ConfigError

log = logging.getLogger("nostrain.daemon")


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
    except* ConfigError as group:
        for error in leaves(group):
            print(f"nostraind: {error}", file=sys.stderr)
        raise SystemExit(EX_CONFIG) from None


def leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    """The errors in a group, without the groups."""
    found: list[BaseException] = []
    for error in group.exceptions:
        found += leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


def set_up_logging(config: DaemonConfig) -> None:
    """One line an event on standard error: time, level, logger, text. Libraries speak only when something is wrong."""
    logging.basicConfig(format="%(asctime)s %(levelname).1s %(name)s: %(message)s", level=logging.WARNING)
    logging.getLogger("nostrain").setLevel(config.log_level.upper())


async def run(config: DaemonConfig) -> None:
    """Serve until told to stop."""
    async with open_node(config) as node, trio.open_nursery() as nursery:
        control = Control(node.status)
        await nursery.start(control.serve, config.control_path)
        if node.runtime is not None:
            nursery.start_soon(node.runtime.run)
            nursery.start_soon(run_feeds, node.runtime)
            if any(role in NODE_ROLES[1:] for role in config.roles):
                nursery.start_soon(node.engine.warm)
        log.info("%s (%s) runs as %s", config.name, node.signer.pubkey[:8], ", ".join(config.roles))
        notify("READY=1")
        await wait_for_stop(control)
        log.info("stopping")
        notify("STOPPING=1")
        nursery.cancel_scope.cancel()


async def wait_for_stop(control: Control) -> None:
    """Return on SIGTERM, SIGINT or a request on the control socket."""
    async with trio.open_nursery() as nursery:

        async def watch_signals() -> None:
            with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
                async for _ in signals:
                    nursery.cancel_scope.cancel()

        nursery.start_soon(watch_signals)
        await control.stop.wait()
        nursery.cancel_scope.cancel()
