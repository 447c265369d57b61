"""What an operator lets the node do with its money by itself. Without a policy it does nothing."""

from __future__ import annotations

from typing import Literal

import msgspec

from nostrain.units import Msat


class ChannelPolicy(msgspec.Struct, frozen=True):
    """A coordinator's: which workers get a channel, how large, and how much all of them may take from the chain.

    `to`: whoever enrolled and asks for one, or only those who hold a ticket. `first_rounds`: how many rounds the channel of a worker has to carry
    to which nothing was paid yet, `rounds` that of others. `total_msat` and `day_msat` bound what goes into channels ever, and in 24 hours;
    `reserve_msat` stays in the wallet. `private`: whether addresses in private networks are gone to.
    """

    to: Literal["ticket", "enrolled"]
    first_rounds: int
    rounds: int
    total_msat: Msat
    day_msat: Msat
    reserve_msat: Msat
    max_channels: int
    minconf: int
    feerate_perkb: int
    commitment_feerate_perkb: int
    announce: bool
    private: bool


class WithdrawPolicy(msgspec.Struct, frozen=True):
    """When our own money goes to `address`: when the wallet, less `reserve_msat`, or what can be sent through one channel, less `keep_msat`, comes
    to `above_msat`.
    """

    address: str
    above_msat: Msat
    keep_msat: Msat
    reserve_msat: Msat
    minconf: int
    feerate_perkb: int
