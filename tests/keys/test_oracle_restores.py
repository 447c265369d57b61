"""The oracle's journal through kills, full disks, lost halves and restored backups: it signs nothing twice, and nothing that it announced before a restore."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from nostrain.errors import ConfigError, LocalProtocolError, Unavailable
from nostrain.keys.journal import DATABASE_FILE, GENERATION_FILE, OracleJournal
from nostrain.keys.oracle import DlcOracle
from nostrain.keys.store import RootSecret
from nostrain.wire import dlc
from tests.keys.conftest import EVENT, MATURITY, ROOT


class Kill(BaseException):
    """The process ends here."""


def restore(backup: Path, folder: Path) -> None:
    """Put a whole folder back from a copy, some time later: no file keeps its ctime."""
    before = (folder / GENERATION_FILE).stat().st_ctime_ns
    shutil.rmtree(folder)
    while True:
        shutil.copytree(backup, folder)
        if (folder / GENERATION_FILE).stat().st_ctime_ns != before:
            return
        shutil.rmtree(folder)  # the clock of this file system is coarse: the same tick is not "some time later"


def test_a_journal_under_another_root_secret_signs_nothing(tmp_path: Path, opened: Callable[..., DlcOracle]) -> None:
    oracle = opened(tmp_path)
    tlv = oracle.announce(EVENT, 4, MATURITY)
    oracle.close()
    with pytest.raises(LocalProtocolError, match="another root secret"):
        opened(tmp_path, RootSecret(bytes(32))).attest(tlv, [1, 0, 0, 0])


@pytest.mark.parametrize("step", ["before the file", "between file and database"])
def test_a_kill_between_the_steps_neither_forgets_nor_refuses(
    tmp_path: Path, opened: Callable[..., DlcOracle], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    oracle = opened(tmp_path)
    tlv = oracle.announce(EVENT, 4, MATURITY)
    replace = oracle._journal._replace_file

    def killed(token: bytes) -> int:
        if step == "between file and database":
            replace(token)
        raise Kill

    monkeypatch.setattr(oracle._journal, "_replace_file", killed)
    with pytest.raises(Kill):
        oracle.attest(tlv, [1, 0, 0, 0])
    oracle.close()
    for _ in range(2):
        again = opened(tmp_path)
        with pytest.raises(LocalProtocolError, match="asked to sign"):
            again.attest(tlv, [1, 1, 0, 0])
        assert dlc.parse_attestation_untrusted(again.attest(tlv, [1, 0, 0, 0])).outcomes == ("1", "0", "0", "0")
        again.close()


@pytest.mark.parametrize("steps", list(itertools.product(["before the file", "between file and database"], repeat=3)))
def test_kills_while_starting_refuse_nothing(
    tmp_path: Path, opened: Callable[..., DlcOracle], monkeypatch: pytest.MonkeyPatch, steps: tuple[str, ...]
) -> None:
    """However often it is killed, in whatever order of places, the oracle still knows that nothing was lost."""
    oracle = opened(tmp_path)
    tlv = oracle.announce(EVENT, 4, MATURITY)
    journal = type(oracle._journal)
    oracle.close()
    replace = journal._replace_file
    for step in steps:

        def killed(self: OracleJournal, token: bytes, step: str = step) -> int:
            if step == "between file and database":
                replace(self, token)
            raise Kill

        with monkeypatch.context() as patch:
            patch.setattr(journal, "_replace_file", killed)
            with pytest.raises(Kill):
                DlcOracle(ROOT, tmp_path)
    assert opened(tmp_path).attest(tlv, [1, 0, 0, 0])


def test_a_full_disk_signs_nothing_and_is_over_when_it_is_over(
    tmp_path: Path, opened: Callable[..., DlcOracle], monkeypatch: pytest.MonkeyPatch
) -> None:
    oracle = opened(tmp_path)
    tlv = oracle.announce(EVENT, 4, MATURITY)

    def full(token: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(oracle._journal, "_replace_file", full)
        for _ in range(2):
            with pytest.raises(Unavailable, match="No space left"):
                oracle.attest(tlv, [1, 0, 0, 0])
    assert oracle.attest(tlv, [1, 0, 0, 0])
    oracle._journal._db.execute("PRAGMA max_page_count = 1")
    with pytest.raises(Unavailable, match="full"):
        [oracle.announce(f"event {attempt}", 64, MATURITY) for attempt in range(1000)]


def test_a_restored_folder_refuses_what_was_announced_before(tmp_path: Path, opened: Callable[..., DlcOracle]) -> None:
    """The backup knows the announcement and not its attestation: signing again could sign another outcome."""
    folder, backup = tmp_path / "data", tmp_path / "backup"
    folder.mkdir()
    oracle = opened(folder)
    tlv = oracle.announce(EVENT, 4, MATURITY)
    oracle.close()
    shutil.copytree(folder, backup)
    oracle = opened(folder)
    oracle.attest(tlv, [1, 1, 0, 0])
    lost = oracle.announce("lost", 4, MATURITY)
    oracle.attest(lost, [1, 0, 0, 0])
    oracle.close()
    restore(backup, folder)
    for _ in range(2):
        restored = opened(folder)
        for outcome in ([1, 1, 0, 0], [1, 0, 0, 0]):
            with pytest.raises(LocalProtocolError, match="restored from a backup"):
                restored.attest(tlv, outcome)
        assert restored.announce(EVENT, 4, MATURITY) == tlv
        nonces = [dlc.parse_announcement_untrusted(data).event.nonces for data in (lost, restored.announce("lost", 4, MATURITY))]
        assert not set(nonces[0]) & set(nonces[1]), "an event that the backup does not know came back with nonces that have signed"
        assert restored.attest(restored.announce("new", 4, MATURITY), [1, 0, 0, 0])
        restored.close()


@pytest.mark.parametrize("while_running", [True, False])
def test_a_restored_database_alone_is_noticed(tmp_path: Path, opened: Callable[..., DlcOracle], while_running: bool) -> None:
    """Also one copied while the oracle that went on to sign was running."""
    folder, backup = tmp_path / "data", tmp_path / "backup"
    folder.mkdir()
    oracle = opened(folder)
    tlv = oracle.announce(EVENT, 4, MATURITY)
    if not while_running:
        oracle.close()
    shutil.copytree(folder, backup)
    if not while_running:
        oracle = opened(folder)
    oracle.attest(tlv, [1, 1, 0, 0])
    oracle.close()
    for file in backup.glob(DATABASE_FILE + "*"):
        shutil.copy(file, folder / file.name)
    with pytest.raises(LocalProtocolError, match="restored from a backup"):
        opened(folder).attest(tlv, [1, 0, 0, 0])


@pytest.mark.parametrize("lose", ["file", "database"])
def test_losing_either_half_begins_a_new_generation(tmp_path: Path, opened: Callable[..., DlcOracle], lose: str) -> None:
    oracle = opened(tmp_path)
    tlv = oracle.announce(EVENT, 4, MATURITY)
    oracle.attest(tlv, [1, 0, 0, 0])
    oracle.close()
    for file in tmp_path.glob(GENERATION_FILE if lose == "file" else DATABASE_FILE + "*"):
        file.unlink()
    oracle = opened(tmp_path)
    with pytest.raises(LocalProtocolError, match="restored from a backup" if lose == "file" else "did not make"):
        oracle.attest(tlv, [1, 1, 0, 0])
    assert (oracle.announce(EVENT, 4, MATURITY) == tlv) == (lose == "file")


def test_a_folder_without_a_usable_journal_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="journal cannot be used"):
        DlcOracle(ROOT, tmp_path / "missing")
    (tmp_path / DATABASE_FILE).write_bytes(b"this is no database, and long enough to be looked at" * 100)
    with pytest.raises(ConfigError, match="not a database"):
        DlcOracle(ROOT, tmp_path)


def test_the_files_are_for_their_owner_alone(tmp_path: Path, opened: Callable[..., DlcOracle]) -> None:
    old = os.umask(0)
    try:
        oracle = opened(tmp_path)
        oracle.attest(oracle.announce(EVENT, 1, MATURITY), [1])
    finally:
        os.umask(old)
    assert {f"{file.stat().st_mode & 0o777:o}" for file in tmp_path.iterdir()} == {"600"}
