"""What payer and payee of an escrow must agree on before either moves: the terms of the locks (design section 6)."""

from __future__ import annotations

from collections.abc import Container

from nostrain.core.effects import LockTerms
from nostrain.core.rounds.epoch import pay_event_id
from nostrain.core.rows import Round, Run
from nostrain.core.transaction import Transaction
from nostrain.protocol.messages import OracleItem
from nostrain.units import Digest, Msat, Pubkey


def amounts(run: Run) -> tuple[Msat, ...]:
    """What each level of one worker's thermometer pays."""
    return (run.manifest.level_msat,) * len(run.manifest.scoring.levels_ppm)


def oracles_of(run: Run, round_: Round, payee: Pubkey, only: Container[Digest] | None = None) -> tuple[tuple[int, OracleItem], ...]:
    """One thermometer of each oracle announced for the pay of `payee`, with its oracle's index: the 1-based position in the announcement's list.

    `only` are the digests of those that an offer is bound to.
    """
    pairs: list[tuple[int, OracleItem]] = []
    event_id = pay_event_id(run.manifest, round_.id, payee)
    for index, entry in enumerate(round_.announcement.validators, start=1):
        announced = round_.oracles.get(entry.pubkey, {}).values()
        items = sorted((item for item in announced if item.event_id == event_id), key=lambda item: item.digest)
        pairs += [(index, item) for item in items if only is None or item.digest in only][:1]
    return tuple(pairs)


def terms(tx: Transaction, run: Run, round_: Round, payee: Pubkey, oracles: tuple[tuple[int, OracleItem], ...]) -> LockTerms:
    """The terms both sides build from public events."""
    return LockTerms(
        network=run.manifest.settlement.network,
        run=run.id,
        announcement=round_.id,
        payer=run.coordinator,
        payee=payee,
        amounts_msat=amounts(run),
        oracles=oracles,
        threshold=run.manifest.threshold,
        instances=run.manifest.settlement.instances,
    )
