"""What may be wrong with letting the node do with its money by itself: channels opened, money withdrawn."""

from __future__ import annotations

from nostrain.config.own_node import own_node
from nostrain.config.schema import DaemonConfig, LightningConfig
from nostrain.errors import ConfigError
from nostrain.wire.address import withdrawal_problem
from nostrain.wire.host_port import address_problem


def check_lightning(lightning: LightningConfig) -> None:
    """Addresses that are some, on the right network. Raises ConfigError."""
    _check_way(lightning)
    problem = address_problem(lightning.address) if lightning.address else None
    if problem is not None:
        raise ConfigError("lightning.address", lightning.address, problem, "Write for example 203.0.113.7:9735")
    withdraw, key = lightning.withdraw, "lightning.withdraw"
    if not withdraw.to:
        return
    problem = withdrawal_problem(withdraw.to, lightning.network)
    if problem is not None:
        raise ConfigError(f"{key}.to", withdraw.to, problem, f"Write a segwit address of yours on {lightning.network}")
    if not lightning.given:
        raise ConfigError("lightning.socket", "", "withdrawals need a Lightning node", "Set it, or drop [lightning.withdraw]")
    if withdraw.above_sat < 100_000:
        reason = "less than 100000: fees would eat it"
        raise ConfigError(f"{key}.above_sat", withdraw.above_sat, reason, "Set it to what you would rather have on the chain")


def check_channels(config: DaemonConfig) -> None:
    """Channels that are opened need a run that pays, and limits. Raises ConfigError."""
    key = "coordinator.channels"
    if config.coordinator is None or not config.coordinator.channels.open:
        return
    channels, settlement = config.coordinator.channels, config.coordinator.run.settlement
    if config.lightning.withdraw.to:
        reason = "the wallet is to pay for channels, and withdrawals would empty it"
        raise ConfigError("lightning.withdraw.to", config.lightning.withdraw.to, reason, "Drop one of the two")
    if settlement.mode != "hold":
        reason = "channels are for paying workers, and the run is not paid"
        raise ConfigError(f"{key}.open", True, reason, 'Write coordinator.run.settlement.mode = "hold", or drop it')
    if not channels.max_total_sat:
        reason = "nothing says how much may go into channels in all"
        raise ConfigError(f"{key}.max_total_sat", 0, reason, "Set it, and max_day_sat, to what strangers may take from the wallet at worst")
    if not 0 < channels.max_day_sat <= channels.max_total_sat:
        reason = f"not between 1 and max_total_sat = {channels.max_total_sat}"
        raise ConfigError(f"{key}.max_day_sat", channels.max_day_sat, reason, "Set it to what may go into channels within 24 hours")
    if channels.to == "ticket" and not settlement.fee_sat:
        reason = "nobody holds a ticket: coordinator.run.settlement.fee_sat is 0"
        raise ConfigError(f"{key}.to", channels.to, reason, 'Charge a fee, or write to = "enrolled"')


def _check_way(lightning: LightningConfig) -> None:
    if lightning.node:
        own_node(lightning.node)
        if not lightning.rune_file:
            reason = "a node without the right to ask it"
            raise ConfigError("lightning.rune_file", "", reason, "Name a file with a rune; `nostrain-ctl wallet rune` says how to make one")
        if lightning.socket:
            raise ConfigError("lightning.node", lightning.node, "two ways to a node", "Drop lightning.node or lightning.socket")
    elif lightning.rune_file:
        raise ConfigError("lightning.node", "", "a rune without a node", "Write id@host:port, or drop lightning.rune_file")
