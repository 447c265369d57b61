"""Whether our Lightning node can settle a round, now: no paid round is joined, announced or bought a ticket for that it cannot.

The shell looks at the node every few seconds and tells what changed (`NodeChanged`). A round that has begun is not given up for that: its
effects are tried until the node is back or their time is over.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

import msgspec

from nostrain.core.escrow.rows import Payee, Payer
from nostrain.core.identity import Identity
from nostrain.core.inputs import NodeChanged
from nostrain.core.rows import NodeState, Run
from nostrain.core.tables import PayeeState, PayerState
from nostrain.core.transaction import Transaction
from nostrain.core.treasury.liquidity_rows import LightningNode, Peer
from nostrain.protocol.manifest import SAT, RunManifest
from nostrain.units import Msat, Pubkey

KEY = "lightning"
HELD: Final = (PayeeState.HELD, PayeeState.RELEASABLE, PayeeState.SETTLING)


class Hindrance(msgspec.Struct, frozen=True):
    """Why no paid round can be settled now. `unknown`: the node was not heard of since we started; `short`: of funds, room or HTLC slots."""

    state: Literal["unknown", "down", "syncing", "short"]
    reason: str


def hindrance(node: LightningNode | None, manifest: RunManifest, *, leads: bool) -> Hindrance | None:
    """What keeps us from a paid round: as its coordinator, or as a worker. None in a run that is not paid."""
    if manifest.settlement.mode == "none":
        return None
    if node is None:
        return Hindrance("unknown", "our Lightning node has not answered yet")
    if node.state != "ready":
        return Hindrance(node.state, node.reason or f"our Lightning node is {node.state}")
    missing = coordinator_lacks(node, manifest) if leads else worker_lacks(node, manifest)
    return Hindrance("short", missing) if missing is not None else None


def worker_lacks(node: LightningNode, manifest: RunManifest) -> str | None:
    """What a worker's channels lack for one round: the fee to spend, room for all levels, an HTLC slot for each."""
    levels, fee = len(manifest.scoring.levels_ppm), manifest.settlement.fee_msat
    needed, there = levels * manifest.level_msat, usable(node)
    if (spendable := sum(peer.spendable_msat for peer in there)) < fee:
        return f"our channels can send {spendable // SAT} sat, a ticket costs {-(-fee // SAT)}"
    if (receivable := sum(peer.receivable_msat for peer in there)) < needed:
        return f"our channels can receive {receivable // SAT} sat, a round pays up to {needed // SAT}"
    if (slots := sum(peer.slots_in for peer in there)) < levels:
        return f"our channels have room for {slots} HTLCs, a round needs {levels}"
    return None


def coordinator_lacks(node: LightningNode, manifest: RunManifest) -> str | None:
    """What a coordinator's channels lack for the levels of even one worker."""
    if payable(node, manifest) >= 1:
        return None
    levels, there = len(manifest.scoring.levels_ppm), usable(node)
    sendable, slots = sum(peer.spendable_msat for peer in there) // SAT, sum(peer.slots_out for peer in there)
    return f"our channels can send {sendable} sat in {slots} HTLCs, one worker needs {levels * manifest.level_msat // SAT} in {levels}"


def payable(node: LightningNode, manifest: RunManifest) -> int:
    """For how many workers the levels of a round can be locked at once, as far as sums tell."""
    levels, there = len(manifest.scoring.levels_ppm), usable(node)
    by_amount = sum(peer.spendable_msat for peer in there) // (levels * manifest.level_msat)
    return min(by_amount, sum(peer.slots_out for peer in there) // levels)


def usable(node: LightningNode) -> tuple[Peer, ...]:
    """Peers that are connected: nothing can be sent to the others, or received from them."""
    return tuple(peer for peer in node.peers if peer.connected)


def unlocked(state: NodeState, run: Run) -> LightningNode | None:
    """Our node with what our escrows lock now added to what it can carry: money and slots that are in use are no lack, and come back or are spent.

    It is what people are told by. What is begun goes by what the node can carry now.
    """
    node, level = state.rows.get(KEY), run.manifest.level_msat
    if not isinstance(node, LightningNode) or not usable(node):
        return node if isinstance(node, LightningNode) else None
    locked = []
    for key in (*state.groups.get("payer", ()), *state.groups.get("payee", ())):
        row = state.rows[key]
        if isinstance(row, Payer) and (count := sum(one.state is PayerState.PAYING for one in row.levels)):
            locked.append(Peer("", True, Msat(count * level), Msat(0), count, 0, owner=row.payee))
        elif isinstance(row, Payee) and (count := sum(one.state in HELD for one in row.levels)):
            locked.append(Peer("", True, Msat(0), Msat(count * level), 0, count))
    return msgspec.structs.replace(node, peers=(*node.peers, *locked))


def unpayable(node: LightningNode, manifest: RunManifest, workers: Iterable[Pubkey]) -> tuple[str, ...]:
    """A line for each of `workers` that has channels with us of which we know that they cannot carry its levels now."""
    levels, lines = len(manifest.scoring.levels_ppm), []
    needed = levels * manifest.level_msat
    for worker in workers:
        of_worker = [peer for peer in node.peers if peer.owner == worker]
        known = [peer for peer in of_worker if peer.node_id]
        there = [peer for peer in of_worker if peer.connected] if any(peer.connected for peer in known) else []
        sendable, slots = sum(peer.spendable_msat for peer in there), sum(peer.slots_out for peer in there)
        if known and not there:
            lines.append(f"worker {worker[:8]}: its node is not connected")
        elif known and sendable < needed:
            lines.append(f"worker {worker[:8]}: its channels can carry {sendable // SAT} of {needed // SAT} sat")
        elif known and slots < levels:
            lines.append(f"worker {worker[:8]}: its channels have {slots} of {levels} HTLC slots")
    return tuple(lines)


def warnings(state: NodeState) -> tuple[str, ...]:
    """What a coordinator should know before the open round, or the next one with the same workers, is locked."""
    run, me = state.rows.get("run"), state.rows.get("node")
    node = unlocked(state, run) if isinstance(run, Run) else None
    if not isinstance(run, Run) or node is None or run.coordinator != getattr(me, "pubkey", None):
        return ()
    if run.manifest.settlement.mode == "none" or run.finished:
        return ()
    workers = sorted(key for key, (_, _, said) in run.enrolled.items() if said.role == "worker")
    return (*crowded(node, run.manifest, len(workers)), *unpayable(node, run.manifest, workers))


def crowded(node: LightningNode, manifest: RunManifest, workers: int) -> tuple[str, ...]:
    """A line if a round cannot be locked for all of so many workers."""
    wanted, can = min(workers, manifest.places), payable(node, manifest)
    return (f"our channels can lock the levels of {can} of {wanted} workers; the others are not listed",) if can < wanted else ()


def places(tx: Transaction, run: Run) -> int:
    """How many workers the next round may list: no more than the manifest says, and no more than can be paid now."""
    node, most = tx.get(KEY, LightningNode), run.manifest.places
    if node is None or run.manifest.settlement.mode == "none":
        return most
    return min(most, payable(node, run.manifest))


def before_locking(tx: Transaction, run: Run, workers: tuple[Pubkey, ...]) -> tuple[str, ...]:
    """What a person should mend, if it can be, before a round with these workers is locked. Nothing in a run that is not paid."""
    node = tx.get(KEY, LightningNode)
    if node is None or run.manifest.settlement.mode == "none":
        return ()
    enrolled = sum(said.role == "worker" for _, _, said in run.enrolled.values())
    return (*crowded(node, run.manifest, enrolled), *unpayable(node, run.manifest, workers))


def able(tx: Transaction, run: Run, *, leads: bool, locked: bool = False) -> bool:
    """Whether a round of the run can be settled now. In the middle of an epoch its levels are `locked` already: the node has to be there, no more."""
    found = hindrance(tx.get(KEY, LightningNode), run.manifest, leads=leads)
    return found is None or (locked and found.state == "short")


def changed(tx: Transaction, input_: NodeChanged) -> None:
    """Take what our Lightning node is now, and say it when that begins or ends to keep us from paid rounds."""
    row, found = tx.get(KEY, LightningNode), held_up(tx.result())
    before = row.told if row is not None else found.state if found is not None else None
    now = LightningNode(input_.state, input_.reason, input_.peers, before, input_.node_id, input_.coins, input_.channels)
    tx.put(KEY, now)
    after = held_up(tx.result())
    tx.put(KEY, msgspec.structs.replace(tx.need(KEY, LightningNode), told=after.state if after is not None else None))
    if after is not None and before != after.state:
        tx.note("warning", "rounds_not_payable", f"no paid round until that changes: {after.reason}")
    elif before is not None and after is None:
        tx.note("info", "rounds_payable", "our Lightning node can settle rounds")


def held_up(state: NodeState) -> Hindrance | None:
    """What keeps us from paid rounds of the run that we follow, beside the escrows that we have."""
    run, me = state.rows.get("run"), state.rows.get("node")
    if not isinstance(run, Run) or not isinstance(me, Identity) or not (run.coordinator == me.pubkey or "worker" in me.roles):
        return None
    return hindrance(unlocked(state, run), run.manifest, leads=run.coordinator == me.pubkey)
