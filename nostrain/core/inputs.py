"""What machines take. Every input is already verified by the shell; it is journalled if it changed the state."""

from __future__ import annotations

from typing import Literal

import msgspec

from nostrain.core.effects import Outcome
from nostrain.core.identity import Identity
from nostrain.core.treasury.liquidity_rows import Coin, OwnChannel, Peer
from nostrain.protocol.messages import Message
from nostrain.units import BlockHeight, Digest, EventId, Msat, Pubkey


class Boot(msgspec.Struct, frozen=True, tag="boot"):
    """The daemon starts, with what its configuration says it is."""

    identity: Identity


class Received(msgspec.Struct, frozen=True, tag="received"):
    """A verified event, from a relay or from the mail."""

    message: Message


class Done(msgspec.Struct, frozen=True, tag="done"):
    """An effect ended."""

    effect: str
    outcome: Outcome


class Tick(msgspec.Struct, frozen=True, tag="tick"):
    """The deadline that `next_deadline` named has come."""


class HoldChanged(msgspec.Struct, frozen=True, tag="hold_changed"):
    """One of our hold invoices changed state at our Lightning node."""

    payment_hash: Digest
    state: Literal["unpaid", "accepted", "paid", "cancelled"]
    amount_msat: Msat
    cltv_expiry: BlockHeight | None = None


class TicketRedeemed(msgspec.Struct, frozen=True, tag="ticket_redeemed"):
    """A worker has paid the submission fee of a round, and shown it; `token` names the L402 token."""

    announcement: EventId
    worker: Pubkey
    size: int
    token: Digest
    payment_hash: Digest


class InvoicePaid(msgspec.Struct, frozen=True, tag="invoice_paid"):
    """An invoice of ours was paid, the `index`-th of the node: for the `worker`'s ticket of a round, or, without one, as our share of the fees of
    the run whose id begins so.
    """

    node_id: str
    index: int
    payment_hash: Digest
    amount_msat: Msat
    announcement: EventId | None = None
    worker: Pubkey | None = None
    run: str = ""


class Block(msgspec.Struct, frozen=True, tag="block"):
    """Our Lightning node sees a new best block."""

    height: BlockHeight


class NodeChanged(msgspec.Struct, frozen=True, tag="node_changed"):
    """Our Lightning node went away, came back, or can carry or spend more or less than before. Told when it differs from what was told last."""

    state: Literal["ready", "syncing", "down"]
    reason: str | None = None
    peers: tuple[Peer, ...] = ()
    node_id: str = ""
    coins: tuple[Coin, ...] = ()
    channels: tuple[OwnChannel, ...] = ()


Input = Boot | Received | Done | Tick | HoldChanged | TicketRedeemed | InvoicePaid | Block | NodeChanged
