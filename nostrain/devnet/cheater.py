"""`python -m nostrain.devnet.cheater --config FILE --cheat NAME`: an ordinary node, but for one cheat. For devnets only."""

from __future__ import annotations

import os
from pathlib import Path
from typing import get_args

import click
import trio

from nostrain.config.load import load_config
from nostrain.config.schema import DaemonConfig
from nostrain.daemon.main import run, set_up_logging
from nostrain.devnet.cheaters import Cheat, runner
from nostrain.devnet.forgery import random_delta
from nostrain.errors import ConfigError


@click.command()
@click.option("--config", "path", type=click.Path(path_type=Path), required=True, help="The TOML file of this daemon.")
@click.option("--cheat", type=click.Choice(get_args(Cheat)), required=True, help="What it does wrong.")
def main(path: Path, cheat: Cheat) -> None:
    """Cheat until told to stop. Only on networks on which money is worth nothing."""
    config = load_config(path, (), os.environ)
    refuse_real_money(config)
    set_up_logging(config)
    # A payer that cheats is left by everybody: it does so in the last round, so that there is something to be seen before.
    honest_rounds = config.coordinator.run.rounds - 1 if config.coordinator is not None else 0
    trio.run(run, config, runner(cheat, random_delta, config.data_path.parent / "twins", honest_rounds))


def refuse_real_money(config: DaemonConfig) -> None:
    """Raises ConfigError on a network that is not a test network of this machine."""
    network = config.lightning.network
    if network != "regtest":
        raise ConfigError("lightning.network", network, "cheaters are for devnets", "Run nostraind, and be honest")


if __name__ == "__main__":
    main()
