"""What payer and payee of an escrow must agree on before either moves: the terms of the locks (design section 6)."""

from __future__ import annotations

from nostrain.core.effects import LockTerms
from nostrain.core.rows import Round, Run
from nostrain.core.transaction import Transaction
from nostrain.protocol.messages import OracleItem
from nostrain.units import Msat, Pubkey


def amounts(run: Run) -> tuple[Msat, ...]:
    """What each level of one worker's thermometer pays."""
    return (run.manifest.settlement.level_msat,) * len(run.manifest.scoring.levels_ppm)


def oracles_of(round_: Round, payee: Pubkey) -> tuple[tuple[int, OracleItem], ...]:
    """Every thermometer announced for `payee`, with its oracle's index: the 1-based position in the announcement's list."""
    pairs = []
    for index, entry in enumerate(round_.announcement.validators, start=1):
        item = round_.oracles.get(entry.pubkey, {}).get(payee)
        if item is not None:
            pairs.append((index, item))
    return tuple(pairs)


def terms(tx: Transaction, run: Run, round_: Round, payee: Pubkey, oracles: tuple[tuple[int, OracleItem], ...]) -> LockTerms:
    """The terms both sides build from public events."""
    return LockTerms(
        network=tx.me.network,
        run=run.id,
        announcement=round_.id,
        payer=run.coordinator,
        payee=payee,
        amounts_msat=amounts(run),
        oracles=oracles,
        threshold=run.manifest.threshold,
        instances=run.manifest.settlement.instances,
    )
