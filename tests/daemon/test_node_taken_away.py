"""A configuration from which Lightning was taken while the journal has money outstanding: the start says what, and what to do."""

from __future__ import annotations

from pathlib import Path

from nostrain.core.rows import NodeState, Row
from nostrain.core.tables import WithdrawalState
from nostrain.core.treasury.opening_rows import Opening
from nostrain.core.treasury.withdrawal_rows import Withdrawal
from nostrain.daemon.storage import batch_of
from nostrain.journal.sqlite import SqliteJournal
from nostrain.keys.store import open_root
from nostrain.units import Msat, Pubkey, UnixTime
from tests.daemon.whole_daemon import WORKER, configure, refused, start


def journalled(folder: Path, rows: dict[str, Row]) -> None:
    open_root(folder / "data")
    with SqliteJournal.open(folder / "data" / "journal.sqlite") as journal:
        journal.commit(batch_of([], NodeState(), NodeState(rows)))


def test_a_withdrawal_that_may_be_sent(tmp_path: Path) -> None:
    journalled(tmp_path, {"withdrawal": Withdrawal(3, "bcrt1qours", WithdrawalState.SENDING, UnixTime(1))})
    words = ("lightning.socket", "withdrawal 3 to bcrt1qours (sending)", "Name the same node again")
    refused(start(configure(tmp_path, WORKER)), *words)


def test_more_than_a_line_holds(tmp_path: Path) -> None:
    workers = [Pubkey(f"{n:064x}") for n in range(7)]
    rows: dict[str, Row] = {f"opening/{one}": Opening(one, "02", "", Msat(50_000_000), (f"aa:{one}",), UnixTime(1)) for one in workers}
    journalled(tmp_path, rows)
    refused(start(configure(tmp_path, WORKER)), "a channel of 50000 sat that is being opened to worker 00000000", "and 2 more")
