"""The real journal's own promises: durability, one writer, full disks, damaged files."""

from __future__ import annotations

import resource
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from random import Random
from threading import Thread

import pytest

from nostrain.errors import ConfigError, LocalProtocolError, OutcomeUnknown, Unavailable
from nostrain.journal import SqliteJournal, schema
from nostrain.ports.journal import Batch
from nostrain.protocol.ledger import LedgerEntry
from nostrain.units import Digest, EventId, Msat, Pubkey, UnixTime


def some(number: int, size: int = 10) -> Batch:
    return Batch(inputs=(b"%d" % number,), rows={"row": b"%d" % number + b"." * size, f"row{number}": b"x"})


def filled(path: Path, batches: int = 50, size: int = 500) -> None:
    with SqliteJournal.open(path) as journal:
        for number in range(batches):
            journal.commit(some(number, size))


def test_reopening_shows_what_was_committed(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "data" / "journal.db"
    filled(path, batches=3)
    with SqliteJournal.open(path) as journal:
        assert journal.load()["row"].startswith(b"2.")
        assert [value for _, value in journal.inputs()] == [b"0", b"1", b"2"]
    assert path.stat().st_mode & 0o077 == 0


def test_it_is_in_wal_mode_and_fully_synchronous(tmp_path: Path) -> None:
    with SqliteJournal.open(tmp_path / "journal.db") as journal:
        settings = {
            name: journal._database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous", "foreign_keys")
        }
    assert settings == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


def test_a_batch_that_fails_halfway_leaves_nothing(tmp_path: Path) -> None:
    with SqliteJournal.open(tmp_path / "journal.db") as journal:
        journal.commit(some(1))
        before = journal.load(), list(journal.inputs())
        with pytest.raises(LocalProtocolError):
            journal.commit(Batch(inputs=(b"in",), rows={"good": b"1", "bad": object()}))  # type: ignore[dict-item]
        assert (journal.load(), list(journal.inputs())) == before
        journal.commit(some(2))
        assert len(list(journal.inputs())) == 2


def test_commit_may_run_in_another_thread(tmp_path: Path) -> None:
    with SqliteJournal.open(tmp_path / "journal.db") as journal:
        thread = Thread(target=journal.commit, args=(some(7),))
        thread.start()
        thread.join()
        assert [value for _, value in journal.inputs()] == [b"7"]


def test_a_second_writer_is_refused_and_named(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with SqliteJournal.open(path), pytest.raises(ConfigError, match="in use by another nostraind"):
        SqliteJournal.open(path)
    SqliteJournal.open(path).close()


def test_a_closed_journal_says_so(tmp_path: Path) -> None:
    journal = SqliteJournal.open(tmp_path / "journal.db")
    journal.close()
    journal.close()
    with pytest.raises(LocalProtocolError, match="closed"):
        journal.commit(some(1))


@contextmanager
def no_file_beyond(size: int) -> Iterator[None]:
    """Every write past `size` bytes of a file fails in this process, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_failing_write_leaves_nothing_and_the_journal_works_again_after(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with SqliteJournal.open(path) as journal:
        journal.commit(some(1))
        before = journal.load()
        with no_file_beyond(100_000), pytest.raises(Unavailable, match="nothing written"):
            journal.commit(some(2, size=200_000))
        assert journal.load() == before
        journal.commit(some(3))
    with SqliteJournal.open(path) as journal:
        assert [value for _, value in journal.inputs()] == [b"1", b"3"]


def test_a_full_database_is_unavailable(tmp_path: Path) -> None:
    with SqliteJournal.open(tmp_path / "journal.db") as journal:
        journal.commit(some(1))
        pages = journal._database.execute("PRAGMA page_count").fetchone()[0]
        journal._database.execute(f"PRAGMA max_page_count = {pages + 1}")
        with pytest.raises(Unavailable, match="full"):
            journal.commit(some(2, size=100_000))
        assert [value for _, value in journal.inputs()] == [b"1"]


def test_a_disk_too_full_to_make_the_journal_is_no_configuration_error(tmp_path: Path) -> None:
    with no_file_beyond(2000), pytest.raises((Unavailable, ConfigError), match="cannot be opened"):
        SqliteJournal.open(tmp_path / "journal.db")
    SqliteJournal.open(tmp_path / "journal.db").close()


class UnsyncedDatabase:
    """A connection whose disk does not promise to keep the COMMIT."""

    in_transaction = False

    def execute(self, statement: str) -> None:
        if statement == "COMMIT":
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
            raise error

    def executemany(self, statement: str, values: object) -> None:
        pass


def test_a_commit_that_was_not_synced_is_unknown_until_the_journal_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with SqliteJournal.open(path) as journal:
        real = journal._database
        journal._database = UnsyncedDatabase()  # type: ignore[assignment]
        with pytest.raises(OutcomeUnknown):
            journal.commit(some(1))
        journal._database = real
        with pytest.raises(OutcomeUnknown, match="open the journal again"):
            journal.commit(some(2))
    with SqliteJournal.open(path) as journal:
        journal.commit(some(3))
        assert [value for _, value in journal.inputs()] == [b"3"]


def test_a_newer_schema_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    filled(path, batches=1)
    with sqlite3.connect(path) as database:
        database.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    database.close()
    with pytest.raises(ConfigError, match="newer nostraind"):
        SqliteJournal.open(path)
    with sqlite3.connect(path) as database:
        assert schema.version_of(database) == schema.VERSION + 1
    database.close()


def test_an_older_schema_is_migrated_in_whole_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal.db"
    filled(path, batches=2)
    step = ("CREATE TABLE extra (x)", "INSERT INTO extra SELECT seq FROM inputs")
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, (*step, "this is not SQL")))
    monkeypatch.setattr(schema, "VERSION", schema.VERSION + 1)
    with pytest.raises(ConfigError, match="cannot be opened"):
        SqliteJournal.open(path)
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS[:-1], step))
    with SqliteJournal.open(path) as journal:
        assert journal._database.execute("SELECT x FROM extra").fetchall() == [(1,), (2,)]
        assert len(journal.load()) == 3


def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE theirs (x)")
    database.close()
    with pytest.raises(ConfigError, match="not a nostrain journal"):
        SqliteJournal.open(path)


@pytest.mark.parametrize("keep", [0, 50, 100, 4096, 5000, -4096, -1])
def test_a_truncated_file_is_refused_and_not_recreated(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "journal.db"
    filled(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:keep])
    with pytest.raises(ConfigError, match=r"journal is damaged|cannot be opened") as caught:
        SqliteJournal.open(path)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == whole[:keep]


def content(path: Path) -> tuple[dict[str, bytes], list[tuple[int, bytes]]] | str:
    """What the journal holds, or the line that says why it cannot be opened."""
    try:
        with SqliteJournal.open(path) as journal:
            return journal.load(), list(journal.inputs())
    except ConfigError as error:
        return str(error)


def test_a_damaged_page_is_noticed(tmp_path: Path, rng: Random) -> None:
    path = tmp_path / "journal.db"
    filled(path)
    whole = path.read_bytes()
    pages = len(whole) // 4096
    assert pages >= 5
    for page in range(pages):
        path.write_bytes(whole[: page * 4096] + rng.randbytes(64) + whole[page * 4096 + 64 :])
        found = content(path)
        assert isinstance(found, str), f"page {page} of {pages}"
        assert "journal" in found


def test_random_bytes_are_no_journal(tmp_path: Path, rng: Random) -> None:
    path = tmp_path / "journal.db"
    path.write_bytes(rng.randbytes(8192))
    with pytest.raises(ConfigError, match="damaged"):
        SqliteJournal.open(path)


def test_a_lost_file_with_its_log_left_behind_is_not_recreated(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    filled(path, batches=1)
    path.with_name("journal.db-wal").write_bytes(b"left")
    path.unlink()
    with pytest.raises(ConfigError, match="missing"):
        SqliteJournal.open(path)
    assert not path.exists()


def test_a_creation_cut_short_is_begun_again(tmp_path: Path) -> None:
    (tmp_path / "journal.db.new").write_bytes(b"half")
    with SqliteJournal.open(tmp_path / "journal.db") as journal:
        assert journal.load() == {}
    assert not (tmp_path / "journal.db.new").exists()


def test_a_folder_in_the_way_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match="cannot be opened"):
        SqliteJournal.open(tmp_path / "file" / "journal.db")


def test_a_journal_of_the_first_version_gets_a_ledger(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
        for statement in schema.MIGRATIONS[0]:
            database.execute(statement)
        database.execute("INSERT INTO rows VALUES ('a', x'31')")
        database.execute("PRAGMA user_version = 1")
        database.commit()
    with SqliteJournal.open(path) as journal:
        assert (journal.load(), journal.totals()) == ({"a": b"1"}, ())


def test_the_ledger_can_neither_be_cut_nor_changed(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    kept = LedgerEntry(UnixTime(1), EventId("r"), 1, EventId("a"), "paid", Msat(7), Digest("h"), Pubkey("p"))
    with SqliteJournal.open(path) as journal:
        journal.commit(Batch((), {}, (kept,)))
    with closing(sqlite3.connect(path)) as database:
        for statement in ("DELETE FROM ledger", "UPDATE ledger SET sum_msat = 0"):
            with pytest.raises(sqlite3.IntegrityError, match="the ledger is never"):
                database.execute(statement)
    with SqliteJournal.open(path) as journal:
        assert journal.ledger() == ((1, kept),)
