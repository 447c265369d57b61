"""Our own money goes to the operator's address by policy (docs/adr/0036): from the wallet, and before that out of a channel that has too much.

One at a time. What is sent is a transaction that was signed and committed before: sending it again sends the same. What comes before it, a splice
out of a channel of ours into a wallet of ours, moves nothing away.
"""

from __future__ import annotations

from typing import Final

import msgspec

from nostrain.core.effects import Effect, Failed, Outcome, PrepareWithdrawal, SendWithdrawal, SpliceOut, TransactionSent, WithdrawalPrepared
from nostrain.core.rows import Chain
from nostrain.core.tables import WithdrawalState, advance
from nostrain.core.timing import DAY_S, not_ahead
from nostrain.core.transaction import Transaction
from nostrain.core.treasury.liquidity import KEY as LIGHTNING
from nostrain.core.treasury.liquidity_rows import Coin, LightningNode, OwnChannel
from nostrain.core.treasury.policies import WithdrawPolicy
from nostrain.core.treasury.withdrawal_rows import Withdrawal
from nostrain.errors import IllegalTransition
from nostrain.protocol.ledger import LedgerEntry
from nostrain.protocol.manifest import SAT
from nostrain.units import EventId, Msat, UnixTime

W = WithdrawalState
KEY: Final = "withdrawal"
OPEN: Final = (W.SPLICING, W.SPLICED, W.PREPARING, W.SENDING)
FEES_MSAT: Final = 20_000 * SAT
"""Left in the wallet for the fee; what is over comes back as change."""
LEAST_MSAT: Final = 10_000 * SAT
"""Less is not worth a transaction."""
RETRY_S: Final = 3_600
"""After one that failed; twice as long after each more, a day at most."""
MAX_RETRY_S: Final = DAY_S
TICKETS: Final = 2
"""So many stay affordable, whatever the operator says: one, and the fee of the splice."""


def decide(tx: Transaction) -> None:
    """Begin a withdrawal if there is enough for one; go on with one whose splice is confirmed."""
    policy, node = tx.me.withdraw, tx.get(LIGHTNING, LightningNode)
    if policy is None or node is None or node.state != "ready":
        return
    last = healed(tx)
    coins = ours(tx, policy, node, last)
    loose = sum(coin.amount_msat for coin in coins) - policy.reserve_msat - FEES_MSAT
    arrived = last is not None and any(coin.outpoint.partition(":")[0] == last.splice_txid for coin in coins)
    if last is not None and last.state is W.SPLICED and loose >= LEAST_MSAT and (arrived or loose >= policy.above_msat):
        prepare(tx, policy, last, coins, loose)
    elif last is None or over(tx, last, arrived=arrived):
        fresh = Withdrawal(
            number=1 if last is None else last.number + 1,
            address=policy.address,
            state=W.SPLICING,
            at=tx.now,
            failures=0 if last is None else last.failures,
        )
        channel = max(spare(tx, node), key=lambda one: (one.spendable_msat, one.channel_id), default=None)
        if loose >= policy.above_msat:
            prepare(tx, policy, msgspec.structs.replace(fresh, state=W.PREPARING), coins, loose)
        elif channel is not None and channel.spendable_msat - kept(tx, policy) >= policy.above_msat:
            splice(tx, policy, fresh, channel)


def healed(tx: Transaction) -> Withdrawal | None:
    """The last one; what a clock that was far ahead has dated would keep the next one waiting until then, and counts from now on."""
    last = tx.get(KEY, Withdrawal)
    if last is None:
        return None
    row = msgspec.structs.replace(last, at=not_ahead(last.at, tx.now), retry_at=not_ahead(last.retry_at, tx.now, MAX_RETRY_S))
    if row != last:
        tx.put(KEY, row)
    return row


def over(tx: Transaction, last: Withdrawal, *, arrived: bool) -> bool:
    """Whether another may begin. What was spliced may all be needed as reserve, or not come: somebody may have spent it, or it was the peer's splice."""
    if last.state is W.SPLICED:
        return arrived or tx.now >= last.at + DAY_S
    return last.state not in OPEN and tx.now >= last.retry_at


def spare(tx: Transaction, node: LightningNode) -> tuple[OwnChannel, ...]:
    """Channels that may be spliced: a coordinator pays its rounds from its own."""
    return () if "coordinator" in tx.me.roles else node.channels


def kept(tx: Transaction, policy: WithdrawPolicy) -> Msat:
    """What stays in a channel: tickets of the run can still be bought with it."""
    return max(policy.keep_msat, Msat(TICKETS * tx.run.manifest.settlement.fee_msat if tx.run is not None else 0))


def ours(tx: Transaction, policy: WithdrawPolicy, node: LightningNode, last: Withdrawal | None) -> tuple[Coin, ...]:
    """What may be spent: confirmed deep enough, and not spent by the last withdrawal, which the node may not have told us yet."""
    height = tx.get("height", Chain)
    spent = last.coins if last is not None and last.state is W.SENT else ()
    deep = (coin for coin in node.coins if height is not None and height.height - coin.height + 1 >= policy.minconf)
    return tuple(coin for coin in deep if coin.outpoint not in spent)


def splice(tx: Transaction, policy: WithdrawPolicy, row: Withdrawal, channel: OwnChannel) -> None:
    """Commit to taking out of a channel what is over, in whole sat, and ask for it."""
    amount = Msat((channel.spendable_msat - kept(tx, policy)) // SAT * SAT)
    row = msgspec.structs.replace(row, channel_id=channel.channel_id, funding_txid=channel.funding_txid, spliced_msat=amount)
    put(tx, row, SpliceOut(KEY, f"splice:{row.number}", row.channel_id, row.funding_txid, amount))


def prepare(tx: Transaction, policy: WithdrawPolicy, row: Withdrawal, coins: tuple[Coin, ...], loose: int) -> None:
    """Commit to the coins, and have the transaction made."""
    amount, spends = Msat(loose // SAT * SAT), tuple(coin.outpoint for coin in coins)
    state = advance("withdrawal", row.state, W.PREPARING)
    row = msgspec.structs.replace(row, state=state, address=policy.address, amount_msat=amount, coins=spends)
    put(tx, row, PrepareWithdrawal(KEY, f"prepare:{row.number}", row.address, amount, spends, policy.feerate_perkb))


def put(tx: Transaction, row: Withdrawal, effect: Effect) -> None:
    """The row, and what it asks for."""
    tx.put(KEY, row)
    tx.emit(effect)


def done(tx: Transaction, outcome: Outcome) -> None:
    """How a step ended."""
    row = tx.need(KEY, Withdrawal)
    what = f"withdrawal {row.number} to {row.address}"
    match outcome:
        case TransactionSent(txid=txid) if row.state is W.SPLICING:
            tx.put(KEY, msgspec.structs.replace(row, state=advance("withdrawal", row.state, W.SPLICED), splice_txid=txid, at=tx.now))
            tx.note("info", "channels_spliced", f"{what}: {row.spliced_msat // SAT} sat leave channel {row.channel_id[:16]}: {txid}")
        case WithdrawalPrepared() if tx.me.withdraw is None or tx.me.withdraw.address != row.address:
            failed(tx, row, "the configuration names another address by now, or none")  # its coins are free in 72 blocks
        case WithdrawalPrepared(txid=txid, psbt=psbt):
            state = advance("withdrawal", row.state, W.SENDING)
            row = msgspec.structs.replace(row, state=state, txid=txid, psbt=psbt)
            put(tx, row, SendWithdrawal(KEY, f"send:{row.number}", txid, psbt, row.coins))
        case TransactionSent(txid=txid):
            state = advance("withdrawal", row.state, W.SENT)
            tx.put(KEY, msgspec.structs.replace(row, state=state, psbt="", failures=0))
            run = tx.run.id if tx.run is not None else EventId("")
            tx.entries.append(LedgerEntry(tx.now, run, 0, EventId(""), "withdrawn", row.amount_msat, txid, tx.me.pubkey))
            tx.note("info", "withdrawn", f"{what}: {row.amount_msat // SAT} sat are sent: {txid}")
        case Failed(reason=reason):
            failed(tx, row, reason)
        case _:
            raise IllegalTransition(f"{KEY} ended with {type(outcome).__name__}")


def failed(tx: Transaction, row: Withdrawal, reason: str) -> None:
    """Nothing was sent; another follows later."""
    state, wait = advance("withdrawal", row.state, W.FAILED), min(RETRY_S << min(row.failures, 10), MAX_RETRY_S)
    retry_at = UnixTime(tx.now + wait)
    tx.put(KEY, msgspec.structs.replace(row, state=state, psbt="", failures=row.failures + 1, retry_at=retry_at))
    tx.note("warning", "withdrawals_failed", f"withdrawal {row.number} to {row.address} failed, again later: {reason}")
