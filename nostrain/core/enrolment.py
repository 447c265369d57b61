"""Taking part: one enrolment for each role, said again when the coordinator has stopped listing us."""

from __future__ import annotations

import msgspec

from nostrain.core import calibration
from nostrain.core.effects import Credentials, CredentialsRead, Failed, MakeOffer, OfferMade, Outcome
from nostrain.core.escrow.income import RUN_CHARS, SHARES
from nostrain.core.escrow.rows import OwnOffer
from nostrain.core.escrow.split import shared
from nostrain.core.rows import Round, Run
from nostrain.core.transaction import Transaction
from nostrain.core.treasury.liquidity import KEY as LIGHTNING
from nostrain.core.treasury.liquidity_rows import LightningNode
from nostrain.errors import IllegalTransition
from nostrain.protocol.messages import Enrolment, NodeAddress

KEY = "enrolment"


def decide(tx: Transaction) -> None:
    """Enrol in the run that we follow; again, later, when an open round does not list us."""
    run = tx.run
    if run is None or run.halted or run.finished:
        return
    if "validator" in tx.me.roles and tx.said(f"{KEY}/0") is None:
        if paid(tx, run) and tx.get("offer", OwnOffer) is None:
            tx.emit(MakeOffer(owner=KEY, name="offer", description=f"{SHARES}{run.id[:RUN_CHARS]}"))
            return
        tx.emit(Credentials(owner=KEY, name="credentials", run=run.id, chain_length=run.manifest.rounds))
    elif "worker" in tx.me.roles and tx.said(f"{KEY}/0") is None:
        if not calibration.awaited(tx):
            speed, node = tx.memory.tokens_per_s, node_of(tx, run)
            mine = Enrolment(run=run.id, role="worker", name=tx.me.name, engine=tx.me.engine, node=node, tokens_per_s=speed)
            tx.say(f"{KEY}/0", mine)
    elif tx.me.pubkey in run.enrolled:
        repeat(tx, run)
        tell(tx, run)


def node_of(tx: Transaction, run: Run) -> NodeAddress | None:
    """Our Lightning node, if a coordinator may open a channel to it; its id is known once the node was heard of."""
    node = tx.get(LIGHTNING, LightningNode)
    wanted = tx.me.address and run.manifest.settlement.mode != "none" and tx.me.network == run.manifest.settlement.network
    return NodeAddress(node.node_id, tx.me.address) if wanted and node is not None and node.node_id else None


def tell(tx: Transaction, run: Run) -> None:
    """A worker's enrolment again, once, when our node, or its address, is another than it says, or our speed is not even half or twice as much."""
    _, created_at, mine = run.enrolled[tx.me.pubkey]
    node, memory = node_of(tx, run) or mine.node, tx.memory
    changed = memory.tokens_per_s and not mine.tokens_per_s // 2 < memory.tokens_per_s < mine.tokens_per_s * 2
    now = msgspec.structs.replace(mine, node=node, tokens_per_s=memory.tokens_per_s if changed else mine.tokens_per_s)
    if mine.role == "worker" and now != mine and created_at < tx.now:
        address = f"{node.id}@{node.address}" if node is not None else ""
        tx.say(f"{KEY}/told/{address}/{now.tokens_per_s}", now)


def repeat(tx: Transaction, run: Run) -> None:
    """The same enrolment with a new date, once for each round that leaves us out."""
    round_ = tx.get(f"round/{run.open}", Round)
    mine = run.enrolled[tx.me.pubkey][2]
    if round_ is None or run.distrusted is not None:
        return
    listed = tx.me.pubkey in round_.announcement.workers or any(e.pubkey == tx.me.pubkey for e in round_.announcement.validators)
    first = tx.said(f"{KEY}/0")
    if not listed and first is not None and first.created_at < tx.now:
        tx.say(f"{KEY}/{round_.announcement.round}", mine)


def paid(tx: Transaction, run: Run) -> bool:
    """Whether a share of the fees can reach us."""
    return shared(run.manifest) and tx.me.pays and tx.me.network == run.manifest.settlement.network


def done(tx: Transaction, outcome: Outcome) -> None:
    """Where we can be paid is known, then the oracle's public half: enrol as a validator."""
    run = tx.run
    if run is None:
        return
    match outcome:
        case OfferMade(offer=offer):
            tx.put("offer", OwnOffer(offer))
        case Failed(reason=reason):
            tx.note("warning", "offers_not_made", f"our node makes no offer: {reason}; we enrol without one, and have no share of the fees")
            tx.put("offer", OwnOffer(None))
        case CredentialsRead():
            tx.say(f"{KEY}/0", enrolment_of(tx, run, outcome))
        case _:
            raise IllegalTransition(f"{KEY} ended with {type(outcome).__name__}")


def enrolment_of(tx: Transaction, run: Run, credentials: CredentialsRead) -> Enrolment:
    """What a validator says when it enrols."""
    own = tx.get("offer", OwnOffer)
    return Enrolment(
        run=run.id,
        role="validator",
        name=tx.me.name,
        engine=tx.me.engine,
        oracle=credentials.oracle,
        endorsement=credentials.endorsement,
        chain_end=credentials.chain_end,
        chain_length=run.manifest.rounds,
        offer=own.offer if own is not None else None,
    )
