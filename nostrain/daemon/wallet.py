"""The money of a running daemon: what its Lightning node holds, and what the rounds brought. Answers of `nostrain-ctl wallet` and `earnings`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from nostrain.core.escrow.rows import Payee, Payer, Tickets
from nostrain.core.escrow.split import shares
from nostrain.core.identity import Identity
from nostrain.core.rounds.round import phase
from nostrain.core.rows import Duty, NodeState, Round, Row, Run, Submission
from nostrain.core.tables import PayeeState, PayerState
from nostrain.core.treasury.liquidity import KEY
from nostrain.core.treasury.liquidity_rows import LightningNode
from nostrain.core.treasury.opening_rows import Opening, Openings
from nostrain.core.treasury.withdrawal_rows import Withdrawal
from nostrain.errors import Unavailable
from nostrain.lightning.node import ClnNode
from nostrain.lightning.replies import PeerChannel
from nostrain.lightning.rpc import Rpc
from nostrain.protocol.ledger import LedgerTotal
from nostrain.units import BlockHeight, Msat, Pubkey
from nostrain.wire.control import Earnings, RoundEarnings, Wallet, WalletChannel, WalletWithdrawal

ASK_S: Final = 8.0
"""Less than the patience of `nostrain-ctl`."""
LOCKED: Final = (PayeeState.HELD, PayeeState.RELEASABLE, PayeeState.SETTLING)

RowT = TypeVar("RowT", bound=Row)


async def read_wallet(rpc: Path | Rpc, state: NodeState | None = None) -> Wallet:
    """Ask the Lightning node; `state` tells whose nodes its peers are. Raises Unavailable."""
    node = ClnNode(rpc, ASK_S)
    info = await node.info()
    owners = owners_of(state or NodeState())
    channels = tuple(wallet_channel(channel, info.blockheight, owners) for channel in await node.channels())
    return spending(Wallet(node_id=info.id, network=info.network, height=info.blockheight, channels=channels), state or NodeState())


def spending(wallet: Wallet, state: NodeState) -> Wallet:
    """With what policies do, if there are any."""
    me, node, opened, last = (state.rows.get(key) for key in ("node", KEY, "openings", "withdrawal"))
    if isinstance(me, Identity) and (me.channels or me.withdraw) and isinstance(node, LightningNode):
        wallet = msgspec.structs.replace(wallet, coins_msat=Msat(sum(coin.amount_msat for coin in node.coins)))
    if isinstance(opened, Openings):
        wallet = msgspec.structs.replace(wallet, opened_msat=opened.total_msat)
    if isinstance(last, Withdrawal):
        amount = last.amount_msat or last.spliced_msat
        shown = WalletWithdrawal(last.number, last.state.value, last.address, amount, last.txid)
        wallet = msgspec.structs.replace(wallet, withdrawal=shown)
    return wallet


def owners_of(state: NodeState) -> dict[str, tuple[Pubkey, str | None]]:
    """Key and name of the participants whose Lightning nodes we know, by node id: from their invoices, or because we opened a channel to them."""
    node, run = state.rows.get(KEY), state.rows.get("run")
    enrolled = run.enrolled if isinstance(run, Run) else {}
    peers = node.peers if isinstance(node, LightningNode) else ()
    known = {row.node_id: row.worker for row in rows_of(state, "opening", Opening)}
    known |= {peer.node_id: peer.owner for peer in peers if peer.owner is not None}
    return {node_id: (owner, enrolled[owner][2].name if owner in enrolled else None) for node_id, owner in known.items()}


def wallet_channel(channel: PeerChannel, height: BlockHeight, owners: Mapping[str, tuple[Pubkey, str | None]]) -> WalletChannel:
    """One channel."""
    owner, name = owners.get(channel.peer_id, (None, None))
    expiries = [htlc.expiry for htlc in channel.htlcs if htlc.expiry is not None]
    return WalletChannel(
        peer_id=channel.peer_id,
        state=channel.state,
        connected=channel.peer_connected,
        spendable_msat=channel.spendable_msat,
        receivable_msat=channel.receivable_msat,
        held_msat=Msat(sum(htlc.amount_msat for htlc in channel.htlcs if htlc.direction == "out")),
        incoming_msat=Msat(sum(htlc.amount_msat for htlc in channel.htlcs if htlc.direction == "in")),
        htlcs_out=sum(htlc.direction == "out" for htlc in channel.htlcs),
        htlcs_in=sum(htlc.direction == "in" for htlc in channel.htlcs),
        slots=channel.max_accepted_htlcs,
        blocks_left=min(expiries) - height if expiries else None,
        owner=owner,
        owner_name=name,
    )


def earnings(state: NodeState, totals: tuple[LedgerTotal, ...] = ()) -> Earnings:
    """What each round that the state still has brought a worker or validator or cost a coordinator, with the sums of the ledger.

    Raises Unavailable in a run that is not paid, unless earlier ones were.
    """
    run = state.rows.get("run")
    if not isinstance(run, Run):
        raise Unavailable("no run was found yet")
    if run.manifest.settlement.mode != "hold" and not totals:
        raise Unavailable(f"the run {run.manifest.name} is not paid: nothing is earned in it")
    rounds = sorted(rows_of(state, "round", Round), key=lambda round_: round_.announcement.round)
    one: Callable[[NodeState, Run, Round], RoundEarnings | None] = worker_round
    own = state.rows.get("node")
    if isinstance(own, Identity) and own.pubkey == run.coordinator:
        one = coordinator_round
    elif isinstance(own, Identity) and "validator" in own.roles:
        one = validator_round
    found = tuple(entry for round_ in rounds if (entry := one(state, run, round_)) is not None)
    return Earnings(run=run.id, name=run.manifest.name, rounds_closed=run.round, rounds=found, totals=totals)


def worker_round(state: NodeState, run: Run, round_: Round) -> RoundEarnings | None:
    """A worker's round; None for one that it took no part in."""
    mine, escrow = state.rows.get(f"work/{round_.id}"), state.rows.get(f"payee/{round_.id}")
    if not isinstance(mine, Submission):
        return None
    levels = escrow.levels if isinstance(escrow, Payee) else ()
    level_msat = run.manifest.level_msat
    settled = sum(level.state is PayeeState.SETTLED for level in levels)
    return RoundEarnings(
        round=round_.announcement.round,
        announcement=round_.id,
        levels=settled,
        reward_msat=settled * level_msat,
        fee_msat=-run.manifest.settlement.fee_msat if mine.ticket is not None else 0,
        share_msat=0,
        locked_msat=sum(level.state in LOCKED for level in levels) * level_msat,
        state=mine.state.value if mine.reason is None else f"{mine.state.value}: {mine.reason}",
    )


def validator_round(state: NodeState, run: Run, round_: Round) -> RoundEarnings | None:
    """A validator's round: its share of the fees, as anybody computes it; None for one that did not list it."""
    duty, own = state.rows.get(f"duty/{round_.id}"), state.rows.get("node")
    if not isinstance(duty, Duty) or not isinstance(own, Identity):
        return None
    return RoundEarnings(
        round=round_.announcement.round,
        announcement=round_.id,
        levels=0,
        reward_msat=0,
        fee_msat=0,
        share_msat=shares(run, round_).get(own.pubkey, Msat(0)),
        locked_msat=0,
        state=duty.state.value if duty.reason is None else f"{duty.state.value}: {duty.reason}",
    )


def coordinator_round(state: NodeState, run: Run, round_: Round) -> RoundEarnings:
    """A coordinator's round: all its workers together."""
    level_msat = run.manifest.level_msat
    states = [level.state for row in rows_of(state, f"payer/{round_.id}", Payer) for level in row.levels]
    tickets = state.rows.get(f"tickets/{round_.id}")
    sold = len(tickets.sold) if isinstance(tickets, Tickets) else 0
    paid = states.count(PayerState.PAID)
    return RoundEarnings(
        round=round_.announcement.round,
        announcement=round_.id,
        levels=paid,
        reward_msat=-paid * level_msat,
        fee_msat=sold * run.manifest.settlement.fee_msat,
        share_msat=-sum(shares(run, round_).values()),
        locked_msat=states.count(PayerState.PAYING) * level_msat,
        state=phase(round_, run).value,
    )


def rows_of(state: NodeState, prefix: str, kind: type[RowT]) -> Iterable[RowT]:
    """Rows of one type whose keys start with `prefix`."""
    keys = state.groups.get(prefix.partition("/")[0], ())
    found = (state.rows[key] for key in keys if key.startswith(prefix))
    return (row for row in found if isinstance(row, kind))
