"""What the configuration lets the node do with its money by itself, as the machines take it."""

from __future__ import annotations

from nostrain.config.schema import DaemonConfig
from nostrain.core.money.policies import ChannelPolicy
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
