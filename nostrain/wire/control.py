"""What `nostrain-ctl` and `nostraind` say to each other on the Unix socket: one JSON object a line, a request and its answer."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from nostrain.errors import RemoteProtocolError
from nostrain.protocol.export import RunModel
from nostrain.protocol.ledger import LedgerEntry, LedgerTotal
from nostrain.units import BlockHeight, Digest, EventId, Msat, Pubkey

MAX_LINE: Final = 1 << 20


class Request(msgspec.Struct, frozen=True):
    """`status`, `wallet`, `plan`, `earnings`, `ledger`, `model`, `metrics` or `stop`.

    `start`: of the ledger, the sequence number of the first entry wanted. `workers` and `rounds`: of a plan; 0 for what the manifest says.
    """

    method: str
    start: int = 0
    workers: Annotated[int, msgspec.Meta(ge=0, le=100_000)] = 0
    rounds: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 0
    v: int = 1


class RunStatus(msgspec.Struct, frozen=True):
    """The run as the daemon sees it."""

    id: EventId
    name: str
    coordinator: Pubkey
    round: int
    rounds: int
    phase: str
    halted: str | None


class CatchingUp(msgspec.Struct, frozen=True):
    """Our copy of the state stands after `round` of the `of` rounds that are closed. `checkpoint`: the round whose checkpoint it takes, if it leaps."""

    round: int
    of: int
    checkpoint: int | None = None


class LightningStatus(msgspec.Struct, frozen=True):
    """Our Lightning node, as far as it matters to rounds: `ready`, `unknown` (not heard of yet), `down`, `syncing`, or `short` of funds, room or
    HTLC slots; only when it is ready are paid rounds joined or announced. `warnings` are about single workers of a coordinator's next round."""

    state: str
    reason: str | None
    warnings: tuple[str, ...]


class Online(msgspec.Struct, frozen=True):
    """Somebody who was heard `seconds` ago; all but the key is its own word."""

    pubkey: Pubkey
    name: str
    role: str
    round: int
    doing: str
    seconds: int


class MemoryStatus(msgspec.Struct, frozen=True):
    """Bytes that the engine may use, 0 if nothing is known; and what the run that is followed takes of a worker or validator, estimated: with one
    window at a time, and with whole batches."""

    has: int
    least: int | None = None
    most: int | None = None


class Status(msgspec.Struct, frozen=True):
    """Everything `nostrain-ctl status` shows. `engine_starts` above 1 means that the engine process had to be replaced. `online`: who was heard of
    those that take part in the run."""

    name: str
    pubkey: Pubkey
    roles: tuple[str, ...]
    version: str
    relays_connected: tuple[str, ...]
    run: RunStatus | None
    state_id: Digest | None
    replica: str | None
    submission: str | None
    duty: str | None
    outstanding: tuple[str, ...]
    counters: dict[str, int]
    engine_starts: int
    blobs_url: str | None
    lightning: LightningStatus | None = None
    online: tuple[Online, ...] = ()
    memory: MemoryStatus | None = None
    catching_up: CatchingUp | None = None


class WalletChannel(msgspec.Struct, frozen=True):
    """One channel of the daemon's Lightning node.

    `held_msat` is what we have offered in HTLCs, `incoming_msat` what was offered to us; `blocks_left` until the first of them expires. `slots`:
    HTLCs allowed in each direction. `owner` and `owner_name`: the participant whose node the peer is, if we know.
    """

    peer_id: str
    state: str
    connected: bool
    spendable_msat: Msat
    receivable_msat: Msat
    held_msat: Msat
    incoming_msat: Msat
    htlcs_out: int
    htlcs_in: int
    slots: int
    blocks_left: int | None
    owner: Pubkey | None = None
    owner_name: str | None = None


class WalletWithdrawal(msgspec.Struct, frozen=True):
    """The last withdrawal by policy; `amount_msat` is what leaves, or, while that is not settled, what was taken out of a channel for it."""

    number: int
    state: str
    address: str
    amount_msat: Msat
    txid: Digest | None


class Wallet(msgspec.Struct, frozen=True):
    """What `nostrain-ctl wallet` shows: the daemon's Lightning node as it says itself.

    Where a policy spends from the wallet, `coins_msat` is what can be spent there, as of a moment ago. `opened_msat` went into channels by policy.
    """

    node_id: str
    network: str
    height: BlockHeight
    channels: tuple[WalletChannel, ...]
    coins_msat: Msat | None = None
    opened_msat: Msat = Msat(0)
    withdrawal: WalletWithdrawal | None = None


class ChannelPlan(msgspec.Struct, frozen=True):
    """What `nostrain-ctl wallet plan` shows: the channel that a coordinator needs to each of `workers` workers, for `rounds` full rounds.

    `sent_msat` is what it sends at most in all of them, less the tickets that come back; `push_msat` goes to the worker at the opening. With
    channels that workers share, `shared_channels` give slots to a whole round. `spendable_msat` and `peers_ready` (peers to which a whole round
    can be locked) are as the node is now, None and 0 if it has not been heard of.
    """

    workers: int
    rounds: int
    levels: int
    level_msat: Msat
    fee_msat: Msat
    sent_msat: Msat
    capacity_msat: Msat
    push_msat: Msat
    reserve_msat: Msat
    slots: int
    shared_channels: int
    spendable_msat: Msat | None
    peers_ready: int


class RoundEarnings(msgspec.Struct, frozen=True):
    """Money of one round: what levels and tickets brought us (positive) or cost us (negative), and what is still locked.

    `levels` were paid, to us or, by a coordinator, to all workers together. `locked_msat` is neither in `reward_msat` nor lost. `share_msat` is
    what a validator has of the fees, or, of a coordinator, what the validators have together: earned, and paid when it is worth a payment.
    """

    round: int
    announcement: EventId
    levels: int
    reward_msat: int
    fee_msat: int
    share_msat: int
    locked_msat: int
    state: str


class Earnings(msgspec.Struct, frozen=True):
    """What `nostrain-ctl earnings` shows: the rounds that the journal keeps, of `rounds_closed` that there were; and the sums of the ledger, which
    forgets nothing."""

    run: EventId
    name: str
    rounds_closed: int
    rounds: tuple[RoundEarnings, ...]
    totals: tuple[LedgerTotal, ...] = ()


class LedgerPage(msgspec.Struct, frozen=True):
    """Some entries of the ledger with their sequence numbers, in order; `more`: these are not the last ones."""

    entries: tuple[tuple[int, LedgerEntry], ...]
    more: bool


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """Exactly one of the fields is set."""

    status: Status | None = None
    wallet: Wallet | None = None
    plan: ChannelPlan | None = None
    earnings: Earnings | None = None
    ledger: LedgerPage | None = None
    model: RunModel | None = None
    metrics: str | None = None
    stopping: bool | None = None
    error: str | None = None


def parse_request_untrusted(line: bytes) -> Request:
    """Raises RemoteProtocolError."""
    try:
        return msgspec.json.decode(line, type=Request)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise RemoteProtocolError("control request", str(error)) from None


def parse_answer_untrusted(line: bytes) -> Answer:
    """Raises RemoteProtocolError."""
    try:
        return msgspec.json.decode(line, type=Answer)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise RemoteProtocolError("control answer", str(error)) from None
