"""`nostrain-ctl wallet rune`: the smallest right to a lightningd with which a daemon of that configuration can do its work."""

from __future__ import annotations

import shlex
from pathlib import Path

import click
import msgspec

from nostrain.config.blobs import PricesConfig
from nostrain.config.load import load_config
from nostrain.config.schema import DaemonConfig
from nostrain.ctl.options import show_json
from nostrain.errors import ConfigError
from nostrain.lightning.rights import Use, restrictions


def show_rune(config: Path, max_payment_sat: int | None, *, as_json: bool = False) -> None:
    """Print the command that makes the rune. Raises click.ClickException."""
    try:
        uses = uses_of(load_config(config))
    except ConfigError as error:
        raise click.ClickException(str(error)) from error
    made, aims = restrictions(uses, max_payment_sat), [use.value for use in Use if use in uses]
    if as_json:
        show_json({"uses": aims, "restrictions": made})
        return
    click.echo(f"# to {', '.join(aims)}")
    click.echo(f"lightning-cli createrune restrictions={shlex.quote(msgspec.json.encode(made).decode())}")


def uses_of(config: DaemonConfig) -> set[Use]:
    """What the roles and options of a daemon need of its Lightning node."""
    uses, roles = {Use.READ}, set(config.roles)
    if "coordinator" in roles:
        uses |= {Use.PAY, Use.FETCH, Use.INVOICE}
    if config.coordinator is not None and config.coordinator.channels.open:
        uses.add(Use.OPEN)
    if config.lightning.withdraw.to:
        uses.add(Use.WITHDRAW)
    if "worker" in roles:
        uses |= {Use.PAY, Use.HOLD}
    if "validator" in roles:
        uses.add(Use.OFFER)
    if config.blobs.prices != PricesConfig():
        uses.add(Use.INVOICE)
    if config.blobs.pay_sat:
        uses.add(Use.PAY)
    return uses
