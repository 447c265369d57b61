"""Which files may go: those of rounds that are forgotten (`core.pruning`: nobody can dispute, pay or follow them any more), unless a row that
is left refers to them. What to remove is an effect like any other, listed until it is done.

The first checkpoint, the dataset and its shards stay, and in an archive the deltas: without those that results used nobody could repeat the
run, and who joins later would depend on checkpoints alone. It keeps the refused ones too: whoever reveals a used delta once more, to have it
refused, must not get it removed.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from nostrain.core.effects import Discard
from nostrain.core.mentions import mentioned
from nostrain.core.rows import Outstanding, Round
from nostrain.core.transaction import Transaction
from nostrain.units import Digest, Pubkey

KEY = "retention"


def forget(tx: Transaction, rounds: list[Round]) -> None:
    """Ask for the removal of what `rounds`, whose rows were dropped in this step, leave behind. One that only listens has no files."""
    me, run = tx.me, tx.run
    if run is None or not me.work_dir:
        return
    left: dict[Digest, None] = {}
    owners: dict[Pubkey, None] = {run.coordinator: None}
    for round_ in rounds:
        left |= dict.fromkeys(leavings(round_, me.archive))
        owners |= dict.fromkeys(round_.announcement.workers)
    rows = [row for row in tx.result().rows.values() if not (isinstance(row, Outstanding) and isinstance(row.effect, Discard))]
    named = mentioned(rows)
    last = max(round_.announcement.round for round_ in rounds)
    blobs = tuple(digest for digest in left if digest not in named.digests)
    names = work_files(named.texts, me.work_dir)
    tx.emit(Discard(KEY, f"{last:05d}", blobs=blobs, owners=tuple(owners), folder=me.work_dir, last=last, keep=names))


def decide(tx: Transaction) -> None:
    """Take back what is asked for and not done yet, where a newer round has come to name the blob."""
    for key in tx.keys(f"effect/{KEY}#"):
        effect = tx.need(key, Outstanding).effect
        assert isinstance(effect, Discard)
        rounds = (tx.need(round_key, Round) for round_key in tx.keys("round/"))
        named = {reveal.blob.sha256 for round_ in rounds for reveal in round_.reveals.values()}
        if named & set(effect.blobs):
            tx.delete(key)
            tx.emit(msgspec.structs.replace(effect, blobs=tuple(digest for digest in effect.blobs if digest not in named)))


def leavings(round_: Round, archive: bool) -> list[Digest]:
    """The blobs of a round that nobody needs after it: the checkpoint that it led to, and its deltas, which an `archive` keeps."""
    deltas = [] if archive else [reveal.blob.sha256 for reveal in round_.reveals.values()]
    return deltas if round_.result is None else [round_.result[1].checkpoint.sha256, *deltas]


def work_files(texts: Iterable[str], folder: str) -> tuple[str, ...]:
    """Names of the files in the work folder that `texts` mention: what stands after the folder, up to the next slash."""
    prefix = f"{folder}/"
    return tuple(sorted({text.removeprefix(prefix).partition("/")[0] for text in texts if text.startswith(prefix)} - {""}))
