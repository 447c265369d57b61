"""A coordinator opens channels to the workers of its run by policy (docs/adr/0035): one at a time, small ones first, within what its operator allows.

A worker gets a channel if its enrolment names its Lightning node, nothing is known against it, and no direct channel carries a round's levels for
it. A second one follows only when the first is used up, a day later at the earliest; whoever closes its channel gets no other by itself. An opening
is committed with the coins that pay for it before anything is asked of the node, and is asked for until it has an outcome.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from typing import Final, NamedTuple

import msgspec

from nostrain.core.effects import ChannelOpened, Failed, OpenChannel, Outcome
from nostrain.core.escrow.rows import Payer, Tickets
from nostrain.core.rows import Chain, Run
from nostrain.core.tables import OpeningState, PayerState, advance
from nostrain.core.timing import DAY_S, not_ahead
from nostrain.core.transaction import Transaction
from nostrain.core.treasury.capacity import capacity_msat
from nostrain.core.treasury.liquidity import KEY as LIGHTNING
from nostrain.core.treasury.liquidity_rows import Coin, LightningNode
from nostrain.core.treasury.opening_rows import Opening, Openings
from nostrain.core.treasury.policies import ChannelPolicy
from nostrain.errors import IllegalTransition
from nostrain.protocol.manifest import SAT
from nostrain.protocol.messages import NodeAddress
from nostrain.units import Msat, Pubkey, UnixTime

N = OpeningState
KEY: Final = "openings"
FEES_MSAT: Final = 20_000 * SAT
"""Kept for the fee when coins are chosen; what is over comes back as change."""
RETRY_S: Final = 3_600
"""After an opening that failed; twice as long after each more, a day at most."""


def decide(tx: Transaction) -> None:
    """Begin the next opening, if there is none under way and the operator's limits allow it."""
    run, policy, node = tx.run, tx.me.channels, tx.get(LIGHTNING, LightningNode)
    if run is None or policy is None or run.coordinator != tx.me.pubkey or run.manifest.settlement.mode == "none":
        return
    if run.finished or run.halted is not None or node is None or node.state != "ready":
        return
    heal(tx)
    there, told = known(tx), None
    if any(row.state is N.OPENING for row in there.before):
        return
    lost = next((row for row in there.before if vanished(tx, node, there, row)), None)
    if lost is not None:
        begin(tx, policy, msgspec.structs.replace(lost, asking=True))
        return
    for worker in candidates(run, policy, there):
        wanted = run.enrolled[worker][2].node
        if wanted is None or not needed(tx, run, policy, node, there, worker, wanted):
            continue
        size = capacity(run, policy, newcomer=not there.paid[worker])
        found = affordable(tx, policy, node, there, worker, size)
        if isinstance(found, str):
            told = told or f"no channel of {size // SAT} sat to worker {worker[:8]}: {found}"
        else:
            begin(tx, policy, Opening(worker, wanted.id, wanted.address, size, found, tx.now))
            return
    tell(tx, told)


def heal(tx: Transaction) -> None:
    """What a clock that was far ahead has dated would keep us from opening anything until then: it counts from now on."""
    for key in tx.keys("opening/"):
        row = tx.need(key, Opening)
        at, retry_at = not_ahead(row.at, tx.now), not_ahead(row.retry_at, tx.now, DAY_S)
        if (at, retry_at) != (row.at, row.retry_at):
            tx.put(key, msgspec.structs.replace(row, at=at, retry_at=retry_at))
    spent = tx.get(KEY, Openings) or Openings()
    recent = tuple((not_ahead(at, tx.now), amount) for at, amount in spent.recent)
    if recent != spent.recent:
        tx.put(KEY, msgspec.structs.replace(spent, recent=recent))


class Known(NamedTuple):
    """What the rows say: levels paid and locked by worker, who holds tickets, and the channels that were opened before."""

    paid: Counter[Pubkey]
    locked: Counter[Pubkey]
    holders: frozenset[Pubkey]
    before: tuple[Opening, ...]


def known(tx: Transaction) -> Known:
    """Of the rounds that are kept; openings for ever."""
    paid: Counter[Pubkey] = Counter()
    locked: Counter[Pubkey] = Counter()
    for row in (tx.need(key, Payer) for key in tx.keys("payer/")):
        states = [level.state for level in row.levels]
        paid[row.payee] += states.count(PayerState.PAID)
        locked[row.payee] += states.count(PayerState.PAYING)
    holders = frozenset(worker for key in tx.keys("tickets/") for worker in tx.need(key, Tickets).sold)
    return Known(paid, locked, holders, tuple(tx.need(key, Opening) for key in tx.keys("opening/")))


def vanished(tx: Transaction, node: LightningNode, there: Known, row: Opening) -> bool:
    """Whether the coins of an opening that failed have gone where we do not know: a call that outlived its daemon may have opened it after all."""
    if row.state is not N.FAILED or tx.now < row.retry_at:
        return False
    return not set(row.coins) <= {coin.outpoint for coin in node.coins} | spent_by(there)


def spent_by(there: Known) -> set[str]:
    """The coins of the channels that were opened."""
    return {coin for row in there.before if row.state is N.OPENED for coin in row.coins}


def candidates(run: Run, policy: ChannelPolicy, there: Known) -> list[Pubkey]:
    """Workers that may have a channel: those that we have paid first, then by how long ago they say they enrolled."""
    found = [
        key
        for key, (_, _, said) in run.enrolled.items()
        if said.role == "worker" and said.node is not None and key not in run.faulty and not run.missed.get(key, 0)
        if policy.to == "enrolled" or key in there.holders
    ]
    return sorted(found, key=lambda key: (-there.paid[key], run.enrolled[key][1], key))


def needed(
    tx: Transaction, run: Run, policy: ChannelPolicy, node: LightningNode, there: Known, worker: Pubkey, wanted: NodeAddress
) -> bool:
    """Whether the worker lacks a channel, and may have one now."""
    if wanted.id == node.node_id or not (policy.private or is_public(wanted.address)):
        return False
    if any(wanted.id == row.opened_to and row.worker != worker for row in there.before):
        return False  # one node behind several keys
    theirs = [peer for peer in node.peers if wanted.id == peer.node_id]
    level_msat = run.manifest.level_msat
    carried = sum(peer.spendable_msat for peer in theirs) + there.locked[worker] * level_msat
    if theirs and carried >= len(run.manifest.scoring.levels_ppm) * level_msat:
        return False
    match next((row for row in there.before if row.worker == worker), None):
        case None:
            return True
        case Opening(opened_to="", retry_at=retry_at):
            return tx.now >= retry_at
        case Opening(opened_to=had, at=at, state=state, retry_at=retry_at):
            # Used up; without a channel it is not confirmed yet, or it was closed.
            return bool(theirs) and had == wanted.id and tx.now >= (retry_at if state is N.FAILED else at + DAY_S)


def is_public(address: str) -> bool:
    """Whether an address that was parsed leads neither into our own network nor nowhere."""
    host = address.rpartition(":")[0].strip("[]")
    if host.endswith(".onion"):
        return True
    found = ipaddress.ip_address(host)
    if isinstance(found, ipaddress.IPv6Address) and found.sixtofour is not None:
        return False  # its relay may be inside
    return found.is_global and not found.is_multicast and not found.is_reserved  # NAT64 and what else embeds IPv4 is reserved


def capacity(run: Run, policy: ChannelPolicy, *, newcomer: bool) -> Msat:
    """Newcomers, to whom nothing was paid lately, start small."""
    rounds = policy.first_rounds if newcomer else policy.rounds
    return capacity_msat(run.manifest.settlement, len(run.manifest.scoring.levels_ppm), rounds, policy.commitment_feerate_perkb)


def affordable(
    tx: Transaction, policy: ChannelPolicy, node: LightningNode, there: Known, worker: Pubkey, size: Msat
) -> tuple[str, ...] | str:
    """The coins for a channel of that size, or what is in the way of it."""
    spent = tx.get(KEY, Openings) or Openings()
    if spent.total_msat + size > policy.total_msat:
        return f"max_total_sat = {policy.total_msat // SAT}, of which {spent.total_msat // SAT} are used up"
    today = sum(amount for at, amount in spent.recent if at > tx.now - DAY_S)
    if today + size > policy.day_msat:
        return f"max_day_sat = {policy.day_msat // SAT}, of which {today // SAT} were used in the last 24 hours"
    others = sum(bool(row.opened_to) for row in there.before if row.worker != worker)
    if others >= policy.max_channels:
        return f"max_channels = {policy.max_channels} workers have one"
    height, used = tx.get("height", Chain), spent_by(there)
    coins = [coin for coin in node.coins if height is not None and height.height - coin.height + 1 >= policy.minconf]
    coins = [coin for coin in coins if coin.outpoint not in used]  # as the node was a moment ago
    if sum(coin.amount_msat for coin in coins) < size + FEES_MSAT + policy.reserve_msat:
        have = sum(coin.amount_msat for coin in coins) // SAT
        return f"the wallet has {have} sat with {policy.minconf} confirmations, and keeps {policy.reserve_msat // SAT}"
    claim = {coin for row in there.before if row.worker == worker and row.state is N.FAILED for coin in row.coins} - used
    if not claim <= {coin.outpoint for coin in coins}:
        return f"the coins of the last attempt have less than {policy.minconf} confirmations"
    return chosen(coins, Msat(size + FEES_MSAT), claim)


def chosen(coins: list[Coin], amount: Msat, claim: set[str]) -> tuple[str, ...]:
    """Those of the attempt before, so that at most one of the two can ever open a channel; then the largest that make up `amount`; together they do."""
    found = [coin for coin in coins if coin.outpoint in claim]
    for coin in sorted(set(coins) - set(found), key=lambda coin: (-coin.amount_msat, coin.outpoint)):
        if sum(one.amount_msat for one in found) < amount:
            found.append(coin)
    return tuple(coin.outpoint for coin in found)


def begin(tx: Transaction, policy: ChannelPolicy, row: Opening) -> None:
    """Commit to an opening, and ask for it; or to asking whether an earlier one, that is `asking`, came to be."""
    key, spent = f"opening/{row.worker}", tx.get(KEY, Openings) or Openings()
    last = tx.get(key, Opening)
    number, failures, earlier = (last.number + 1, last.failures, last.opened_to) if last is not None else (1, 0, "")
    row = msgspec.structs.replace(row, number=number, failures=failures, earlier=earlier, at=tx.now, state=N.OPENING)
    tx.put(key, row)
    recent = (*(entry for entry in spent.recent if entry[0] > tx.now - DAY_S), (tx.now, row.capacity_msat))
    tx.put(KEY, Openings(Msat(spent.total_msat + row.capacity_msat), recent))
    tx.emit(
        OpenChannel(
            owner=key,
            name=f"open:{number}",
            node_id=row.node_id,
            address=row.address,
            capacity_msat=row.capacity_msat,
            coins=row.coins,
            feerate_perkb=policy.feerate_perkb,
            announce=policy.announce,
            ask=row.asking,
        )
    )


def tell(tx: Transaction, told: str | None) -> None:
    """Say what is in the way, once."""
    spent = tx.get(KEY, Openings) or Openings()
    if told != spent.told:
        tx.put(KEY, msgspec.structs.replace(spent, told=told))
        if told is not None:
            tx.note("warning", "channels_not_opened", told)


def done(tx: Transaction, key: str, outcome: Outcome) -> None:
    """How an opening ended. What failed for certain took nothing."""
    row, spent = tx.need(key, Opening), tx.need(KEY, Openings)
    whom = f"a channel of {row.capacity_msat // SAT} sat to worker {row.worker[:8]}"
    match outcome:
        case ChannelOpened(txid=txid, channel_id=channel_id):
            state = advance("opening", row.state, N.OPENED)
            tx.put(key, msgspec.structs.replace(row, state=state, txid=txid, channel_id=channel_id, failures=0, asking=False))
            later = (*without(spent, row), (tx.now, row.capacity_msat))  # it may have taken long
            tx.put(KEY, msgspec.structs.replace(spent, recent=later))
            tx.note("info", "channels_opened", f"opened {whom}: {txid}")
        case Failed(reason=reason):
            state = advance("opening", row.state, N.FAILED)
            if row.asking:  # its coins were spent otherwise, or nothing has held them for an hour: it will not come
                tx.put(key, msgspec.structs.replace(row, state=state, coins=(), asking=False))
            else:
                retry_at = UnixTime(tx.now + min(RETRY_S << min(row.failures, 10), DAY_S))
                tx.put(key, msgspec.structs.replace(row, state=state, failures=row.failures + 1, retry_at=retry_at))
            total = Msat(spent.total_msat - row.capacity_msat)
            tx.put(KEY, msgspec.structs.replace(spent, total_msat=total, recent=without(spent, row)))
            if not row.asking:
                tx.note("warning", "channels_failed", f"could not open {whom}: {reason}")
        case _:
            raise IllegalTransition(f"{key} ended with {type(outcome).__name__}")


def without(spent: Openings, row: Opening) -> tuple[tuple[UnixTime, Msat], ...]:
    """What was used lately, less one opening: another of the same size may have ended in the second in which this one was begun."""
    entry = (row.at, row.capacity_msat)
    at = spent.recent.index(entry) if entry in spent.recent else len(spent.recent)
    return (*spent.recent[:at], *spent.recent[at + 1 :])
