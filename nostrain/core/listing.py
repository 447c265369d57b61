"""Whom a round lists: its workers, each with a place to be paid in, and the validators that score them."""

from __future__ import annotations

from typing import Final

from nostrain.core.escrow.rows import Payer
from nostrain.core.rounds.epoch import last_of
from nostrain.core.rows import Round, Run
from nostrain.core.tables import PayerState
from nostrain.core.transaction import Transaction
from nostrain.core.treasury.liquidity import places
from nostrain.protocol.digests import ranked
from nostrain.protocol.limits import MAX_VALIDATORS
from nostrain.protocol.messages import ValidatorEntry
from nostrain.units import Digest, Pubkey

P = PayerState
MAX_MISSED: Final = 3
"""Rounds in a row that a listed worker may be absent before it is left out until it enrols again."""
NEWCOMERS: Final = 4
"""One place of so many is for them."""


def listed(tx: Transaction, run: Run) -> tuple[tuple[Pubkey, ...], tuple[ValidatorEntry, ...]]:
    """Whom the next round lists: everyone who enrolled, was not absent lately and neither contradicted itself nor was proved to cheat.

    If there are more workers than fit, they take turns (`in_turn`). If all were absent, nobody is left out: they only hear of it from a round that
    does not list them. No more are listed than can be paid now. Of more validators than fit, those of the last round come first, then those of whom
    we heard first: keys can be ground, arrivals cannot.
    """
    last = tx.get(f"round/{list(run.results)[-1]}", Round) if run.results else None
    incumbent = {entry.pubkey for entry in last.announcement.validators} if last is not None else set()
    workers = [key for key, (_, _, said) in run.enrolled.items() if said.role == "worker" and key not in run.faulty]
    workers = [key for key in workers if run.missed.get(key, 0) < MAX_MISSED] or workers
    trusted = tx.me.plan.validators if tx.me.plan is not None else ()
    entries: dict[Pubkey, ValidatorEntry] = {}
    for key, (_, _, said) in sorted(run.enrolled.items(), key=lambda item: item[0] not in incumbent):
        chosen = said.role == "validator" and key not in run.faulty and (not trusted or key in trusted)
        if chosen and said.chain_length >= last_of(run.manifest, run.round + 1) and said.oracle not in entries:
            assert said.oracle is not None and said.endorsement is not None and said.chain_end is not None  # noqa: PT018 - fold_enrolment
            entries[said.oracle] = ValidatorEntry(key, said.oracle, said.endorsement, said.chain_end, said.chain_length)
    validators = sorted(list(entries.values())[:MAX_VALIDATORS], key=lambda entry: entry.pubkey)
    return tuple(sorted(in_turn(run, workers, places(tx, run)))), tuple(validators)


def in_turn(run: Run, workers: list[Pubkey], most: int) -> list[Pubkey]:
    """At most so many, in turns that nobody's key decides: by H(head of the chain ‖ key), which is another order in every round.

    Those who took part before come first, so that a crowd of newcomers does not displace them; but a quarter of the places, over the rounds, is
    for keys that no round has listed yet.
    """
    order = ranked(Digest(run.head), workers)
    known = sorted((key for key in order if key in run.missed), key=lambda key: run.missed[key])
    new = [key for key in order if key not in run.missed]
    turn = run.round + 1
    kept = most * turn // NEWCOMERS - most * (turn - 1) // NEWCOMERS
    count = min(len(new), max(kept, most - len(known)))
    return new[:count] + known[: most - count]


def still_listed(tx: Transaction, run: Run, anchor: Round) -> tuple[tuple[Pubkey, ...], tuple[ValidatorEntry, ...]]:
    """Whom a round in the middle of an epoch lists: its validators, and those of its workers whose pay is locked and who were not absent lately.

    If that is nobody, all of its workers: a round has to list someone.
    """
    workers = anchor.announcement.workers
    escrows = {key: tx.get(f"payer/{anchor.id}/{key}", Payer) for key in workers}
    locked = [
        key for key, row in escrows.items() if row is not None and row.levels and all(level.state is P.PAYING for level in row.levels)
    ]
    present = tuple(key for key in locked if run.missed.get(key, 0) < MAX_MISSED)
    return present or workers, anchor.announcement.validators
