"""The commands of `nostrain-ctl`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

import nostrain
from nostrain.ctl.data import data
from nostrain.ctl.model import model
from nostrain.ctl.options import CONTROL, FOLDER, as_json, relays, show_json

if TYPE_CHECKING:
    from nostrain.devnet.layout import LightningKind

JSON = as_json("the daemon's answer")
CHEATERS = (
    "Make some of the last participants cheat, and see what it earns them: noise, copy-digest, copy-previous, twin (two workers), no-reveal, "
    "bad-payer, silent-validator."
)
EXIT_CODES = """
Exit codes: 0 it is done, 1 it is not and standard error says why, 2 wrong command line, 3 `audit` found proofs, 130 `devnet` was interrupted.
"""
ENGINES = "What the workers and validators train and score with, in turn: pytorch, mlx."


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, epilog=EXIT_CODES)
@click.version_option(nostrain.__version__)
def main() -> None:
    """Speak to a nostrain daemon, find training runs, make datasets, or run a whole network on this machine.

    `nostrain-ctl devnet --rounds 2` shows everything at work and needs no daemon. A daemon is asked through the control socket in its data folder:
    name it once with NOSTRAIN_CONTROL, or in each command with --control. Tables are in sat, JSON is in msat.
    """


main.add_command(data)
main.add_command(model)


@main.command(short_help="Train on this machine, as separate processes on loopback.")
@click.option("--rounds", type=click.IntRange(1, 1000), default=8, show_default=True, help="Rounds to train.")
@click.option("--workers", type=click.IntRange(1, 16), default=4, show_default=True, help="Daemons that train.")
@click.option("--validators", type=click.IntRange(1, 8), default=3, show_default=True, help="Daemons that score; a majority decides.")
@click.option("--relays", "relay_count", type=click.IntRange(1, 8), default=1, show_default=True, help="Relays, all of them everybody's.")
@relays("A relay to use instead of own ones")
@click.option("--seed", type=click.IntRange(0, (1 << 63) - 1), default=0, show_default=True, help="Fixes keys, model and data.")
@click.option("--text", type=FOLDER, default=None, help="Folder of text to learn from.  [default: this Python's standard library]")
@click.option("--data", "dataset", type=FOLDER, default=None, help="Dataset to learn from instead: a folder that `data build` made.")
@click.option("--init", type=FOLDER, default=None, help="Pretrained checkpoint to begin with: a folder with config.json and safetensors.")
@click.option("--model", type=click.Choice(["tiny"]), default="tiny", show_default=True, help="Size of the Llama.")
@click.option("--paid/--unpaid", default=True, show_default=True, help="Pay every round over a Lightning network.")
@click.option(
    "--lightning",
    type=click.Choice(["simnet", "regtest"]),
    default="simnet",
    show_default=True,
    help="That network: simulated, or bitcoind and a lightningd for each participant, from PATH, on a regtest chain.",
)
@click.option("--epoch-rounds", type=click.IntRange(1, 8), default=1, show_default=True, help="Rounds that are escrowed and paid together.")
@click.option("--delay", type=click.IntRange(0, 1), default=0, show_default=True, help="1: train while the round before is scored.")
@click.option("--engines", default="pytorch", show_default=True, metavar="NAME,…", help=ENGINES)
@click.option("--cheaters", default="", metavar="NAME,…", help=CHEATERS)
@click.option("--keep", type=FOLDER, default=None, help="Empty folder to keep everything in: configs, logs, journals, checkpoints.")
@click.option(
    "--export", type=click.Path(path_type=Path), default=None, help="Write the trained model into this new folder, for from_pretrained."
)
@click.option(
    "--json",
    "json_path",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    help="Write the report here as JSON, amounts in msat.",
)
@click.option("--reference", is_flag=True, help="Afterwards repeat the run in one process and compare every digest.")
def devnet(
    rounds: int,
    workers: int,
    validators: int,
    relay_count: int,
    relays: tuple[str, ...],
    seed: int,
    text: Path | None,
    dataset: Path | None,
    init: Path | None,
    model: str,
    paid: bool,
    lightning: str,
    epoch_rounds: int,
    delay: int,
    engines: str,
    cheaters: str,
    keep: Path | None,
    export: Path | None,
    json_path: Path | None,
    reference: bool,
) -> None:
    """Train on this machine: relays, a coordinator, validators and workers as separate processes on loopback."""
    from nostrain.devnet.cheaters import parse_cheats
    from nostrain.devnet.command import run
    from nostrain.devnet.layout import Options, parse_engines
    from nostrain.errors import ConfigError

    try:
        cheats, kinds = parse_cheats(cheaters), parse_engines(engines)
    except ConfigError as error:
        raise click.UsageError(str(error)) from None
    options = Options(
        rounds=rounds,
        workers=workers,
        validators=validators,
        relays=relay_count,
        relay_urls=relays,
        seed=seed,
        text=text,
        dataset=dataset,
        init=init,
        model=model,
        paid=paid,
        lightning=cast("LightningKind", lightning),
        epoch_rounds=epoch_rounds,
        delay=delay,
        engines=kinds,
        cheaters=cheats,
    )
    sys.exit(run(options, keep=keep, json_path=json_path, with_reference=reference, export=export))


@main.command()
@CONTROL
@JSON
def status(control: Path, as_json: bool) -> None:
    """What the daemon is doing now."""
    from nostrain.ctl.client import call
    from nostrain.ctl.render import show_status
    from nostrain.wire.control import Request

    answer = call(control, Request("status"))
    if answer.status is not None:
        show_status(answer.status, as_json=as_json)


@main.group()
def run() -> None:
    """Find training runs on relays."""


RELAYS = relays("Ask this relay instead of the daemon's")


@run.command("list")
@CONTROL
@RELAYS
@as_json("a list of them")
def run_list(control: Path, relays: tuple[str, ...], as_json: bool) -> None:
    """Which runs there are: model, pay, coordinator, where they stand."""
    from nostrain.ctl.runs import list_runs

    list_runs(relays, control, as_json=as_json)


@run.command("show", short_help="Everything that relays say of one run.")
@click.argument("run")
@CONTROL
@RELAYS
@click.option("--listen", type=click.FloatRange(0, 300), default=5.0, show_default=True, help="Seconds to listen for who is online.")
@as_json("everything")
def run_show(run: str, control: Path, relays: tuple[str, ...], listen: float, as_json: bool) -> None:
    """Everything that relays say of RUN: the id of its manifest, an nevent or an naddr."""
    from nostrain.ctl.runs import show_run

    show_run(run, relays, control, listen, as_json=as_json)


@main.group(invoke_without_command=True, short_help="What the Lightning node can spend and receive.")
@CONTROL
@JSON
@click.pass_context
def wallet(context: click.Context, control: Path, as_json: bool) -> None:
    """What the daemon's Lightning node can spend and receive, and what is held."""
    from click.core import ParameterSource

    from nostrain.ctl.money import show_wallet

    command = context.invoked_subcommand
    if command is None:
        show_wallet(control, as_json=as_json)
    elif any(context.get_parameter_source(name) is ParameterSource.COMMANDLINE for name in ("control", "as_json")):
        raise click.UsageError(f"write the options of `{command}` behind it: nostrain-ctl wallet {command} …")


@wallet.command()
@CONTROL
@click.option("--workers", type=click.IntRange(1, 100_000), help="Workers to pay.  [default: the manifest's slots]")
@click.option("--rounds", type=click.IntRange(1, 1_000_000), help="Full rounds to pay before a channel is refilled.  [default: all]")
@JSON
def plan(control: Path, workers: int | None, rounds: int | None, as_json: bool) -> None:
    """Which channels a coordinator needs to pay the workers of its run."""
    from nostrain.ctl.money import show_plan

    show_plan(control, workers or 0, rounds or 0, as_json=as_json)


@wallet.command(short_help="How to make the rune that this daemon needs.")
@click.option("--config", type=click.Path(path_type=Path, exists=True, dir_okay=False), required=True, help="The daemon's TOML file.")
@click.option("--max-payment-sat", type=click.IntRange(1), help="The most that one payment may be, without routing fees.  [default: any]")
@as_json("what the rune is for and its restrictions")
def rune(config: Path, max_payment_sat: int | None, as_json: bool) -> None:
    """How to make a rune that allows what this daemon needs of its Lightning node, and nothing else."""
    from nostrain.ctl.rune import show_rune

    show_rune(config, max_payment_sat, as_json=as_json)


@main.command(short_help="What each round brought and what it cost.")
@CONTROL
@JSON
@click.option("--csv", "as_csv", is_flag=True, help="Print the whole ledger as CSV for bookkeeping: a line for each amount, in msat.")
def earnings(control: Path, as_json: bool, as_csv: bool) -> None:
    """What each round brought and what it cost, and the sums since the journal began."""
    from nostrain.ctl.earnings import show_earnings

    if as_json and as_csv:
        raise click.UsageError("--json and --csv are two answers: ask for one of them")
    show_earnings(control, as_json=as_json, as_csv=as_csv)


@main.command()
@CONTROL
def metrics(control: Path) -> None:
    """Counters of the daemon, in Prometheus' text format."""
    from nostrain.ctl.client import call
    from nostrain.wire.control import Request

    click.echo(call(control, Request("metrics")).metrics or "", nl=False)


@main.command()
@CONTROL
@JSON
def stop(control: Path, as_json: bool) -> None:
    """Ask the daemon to end."""
    from nostrain.ctl.client import call
    from nostrain.wire.control import Request

    answer = call(control, Request("stop"))
    if as_json:
        show_json({"stopping": answer.stopping})
    else:
        click.echo("stopping")


@main.command(short_help="Say what events prove, and against whom.")
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@relays("Read a run from this relay")
@click.option("--run", default="", metavar="RUN", help="The run to read: the id of its manifest, an nevent or an naddr.")
@as_json("proofs, and disputes with their verdicts,")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), default=None, help="Write the proofs here, one JSON line each.")
def audit(file: Path | None, relays: tuple[str, ...], run: str, as_json: bool, out: Path | None) -> None:
    """Say what events prove against whom, and which disputes stand: those in FILE (events and proofs as JSON lines), those of a run on relays.

    Exit code 3 when anything is proved, 0 when nothing is.
    """
    from nostrain.ctl.audit import EXIT_PROVED
    from nostrain.ctl.audit import audit as search

    if file is None and not relays:
        raise click.UsageError("name a FILE, or a --relay and a --run")
    if bool(relays) != bool(run):
        raise click.UsageError("--relay and --run go together: which run to read, and from where")
    sys.exit(EXIT_PROVED if search(file, out, relays=relays, run=run, as_json=as_json) else 0)
