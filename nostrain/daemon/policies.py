"""What the configuration lets the node do with its money by itself, as the machines take it."""

from __future__ import annotations

from nostrain.config.schema import DaemonConfig
from nostrain.core.treasury.policies import ChannelPolicy, WithdrawPolicy
from nostrain.protocol.manifest import SAT
from nostrain.units import Msat


def channel_policy(config: DaemonConfig) -> ChannelPolicy | None:
    """`[coordinator.channels]`, None when it is off."""
    if config.coordinator is None or not config.coordinator.channels.open:
        return None
    channels = config.coordinator.channels
    return ChannelPolicy(
        to=channels.to,
        first_rounds=channels.first_rounds,
        rounds=channels.rounds,
        total_msat=Msat(channels.max_total_sat * SAT),
        day_msat=Msat(channels.max_day_sat * SAT),
        reserve_msat=Msat(channels.reserve_sat * SAT),
        max_channels=channels.max_channels,
        minconf=channels.minconf,
        feerate_perkb=channels.feerate_perkb,
        commitment_feerate_perkb=config.coordinator.run.settlement.feerate_perkb,
        announce=channels.announce,
        private=config.private_addresses,
    )


def withdraw_policy(config: DaemonConfig) -> WithdrawPolicy | None:
    """`[lightning.withdraw]`, None when it is off."""
    withdraw = config.lightning.withdraw
    if not withdraw.to:
        return None
    return WithdrawPolicy(
        address=withdraw.to,
        above_msat=Msat(withdraw.above_sat * SAT),
        keep_msat=Msat(withdraw.keep_sat * SAT),
        reserve_msat=Msat(withdraw.reserve_sat * SAT),
        minconf=withdraw.minconf,
        feerate_perkb=withdraw.feerate_perkb,
    )
