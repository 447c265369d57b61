"""The oracle: announces, attests each digit once whatever happens to it, and refuses after a restore."""

from __future__ import annotations

import itertools
import os
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nostrain.crypto.lock import LockContext, LockOracle, combine, expand, open_share
from nostrain.crypto.oracle import verify_endorsement
from nostrain.errors import ConfigError, LocalProtocolError, Unavailable
from nostrain.hashes import sha256_hex
from nostrain.keys.journal import DATABASE_FILE, GENERATION_FILE, OracleJournal
from nostrain.keys.oracle import DlcOracle
from nostrain.keys.signer import NostrSigner
from nostrain.keys.store import RootSecret
from nostrain.protocol.digests import chain_reaches
from nostrain.units import Digest, EventId, Msat, Pubkey, UnixTime
from nostrain.wire import dlc

ROOT = RootSecret(bytes(range(32)))
MATURITY = UnixTime(1_700_000_000)
EVENT = f"nostrain/1/{'a' * 64}/{'b' * 64}/0"


class Kill(BaseException):
    """The process ends here."""


@pytest.fixture
def opened() -> Iterator[Callable[..., DlcOracle]]:
    """Opens oracles and closes them when the test ends, as the end of a process would."""
    oracles: list[DlcOracle] = []

    def make(folder: Path, root: RootSecret = ROOT) -> DlcOracle:
        oracles.append(DlcOracle(root, folder))
        return oracles[-1]

    yield make
    for oracle in oracles:
        oracle.close()


def restore(backup: Path, folder: Path) -> None:
    """Put a whole folder back from a copy, some time later: no file keeps its ctime."""
    before = (folder / GENERATION_FILE).stat().st_ctime_ns
    shutil.rmtree(folder)
    while True:
        shutil.copytree(backup, folder)
        if (folder / GENERATION_FILE).stat().st_ctime_ns != before:
            return
        shutil.rmtree(folder)  # the clock of this file system is coarse: the same tick is not "some time later"


def test_an_announcement_is_what_the_port_says(tmp_path: Path, opened: Callable[..., DlcOracle]) -> None:
    oracle = opened(tmp_path)
    tlv = oracle.announce(EVENT, 4, MATURITY)
    read = dlc.parse_announcement_untrusted(tlv)
    assert read.is_thermometer
    assert (read.pubkey, read.event.event_id, read.event.maturity, len(read.event.nonces)) == (oracle.pubkey, EVENT, MATURITY, 4)
    assert oracle.announce(EVENT, 4, MATURITY) == tlv
    other = dlc.parse_announcement_untrusted(oracle.announce(EVENT[:-1] + "1", 4, MATURITY))
    assert not set(read.event.nonces) & set(other.event.nonces)


@pytest.mark.parametrize(("digits", "maturity"), [(3, MATURITY), (4, MATURITY + 1)])
def test_an_event_has_one_announcement(tmp_path: Path, opened: Callable[..., DlcOracle], digits: int, maturity: int) -> None:
    oracle = opened(tmp_path)
    oracle.announce(EVENT, 4, MATURITY)
    with pytest.raises(LocalProtocolError, match="already announced"):
        oracle.announce(EVENT, digits, UnixTime(maturity))


@pytest.mark.parametrize(("event", "digits", "maturity"), [("e", 0, 1), ("e", 65, 1), ("e", 1, -1), ("e", 1, 1 << 32), ("e" * 257, 1, 1)])
def test_announcements_out_of_bounds_are_refused(
    tmp_path: Path, opened: Callable[..., DlcOracle], event: str, digits: int, maturity: int
) -> None:
    with pytest.raises(LocalProtocolError, match="cannot announce"):
        opened(tmp_path).announce(event, digits, UnixTime(maturity))


@pytest.mark.parametrize("level", range(5))
def test_an_attestation_verifies_and_repeats(tmp_path: Path, opened: Callable[..., DlcOracle], level: int) -> None:
    oracle = opened(tmp_path)
    tlv = oracle.announce(EVENT, 4, MATURITY)
    outcome = [1] * level + [0] * (4 - level)
    attested = oracle.attest(tlv, outcome)
    assert dlc.verify_attestation(dlc.parse_announcement_untrusted(tlv), dlc.parse_attestation_untrusted(attested)) == tuple(outcome)
    assert oracle.attest(tlv, tuple(outcome)) == attested
    oracle.close()
    assert opened(tmp_path).attest(tlv, outcome) == attested


@pytest.mark.parametrize("outcome", [[0, 1, 0, 0], [1, 1, 0], [1] * 5, [2, 0, 0, 0], [-1] * 4, []])
def test_other_outcomes_than_thermometers_are_refused(tmp_path: Path, opened: Callable[..., DlcOracle], outcome: list[int]) -> None:
    oracle = opened(tmp_path)
    with pytest.raises(LocalProtocolError, match="thermometer"):
        oracle.attest(oracle.announce(EVENT, 4, MATURITY), outcome)


def test_a_second_outcome_is_never_signed(tmp_path: Path, opened: Callable[..., DlcOracle]) -> None:
    """Not now, not after a restart; and the refusal records nothing of it."""
    oracle = opened(tmp_path)
    tlv = oracle.announce(EVENT, 4, MATURITY)
    attested = oracle.attest(tlv, [1, 1, 0, 0])
    for _ in range(2):
        for outcome in ([1, 0, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0]):
            with pytest.raises(LocalProtocolError, match="asked to sign"):
                oracle.attest(tlv, outcome)
        assert oracle.attest(tlv, [1, 1, 0, 0]) == attested
        oracle.close()
        oracle = opened(tmp_path)


def test_the_nonces_are_unique_in_the_database_itself(tmp_path: Path, opened: Callable[..., DlcOracle]) -> None:
    oracle = opened(tmp_path)
    oracle.attest(oracle.announce(EVENT, 1, MATURITY), [1])
    oracle.close()
    with sqlite3.connect(tmp_path / DATABASE_FILE) as db:
        nonce, outcome = db.execute("SELECT * FROM attestations").fetchone()
        assert outcome == "1"
        with pytest.raises(sqlite3.IntegrityError):
            db.execute("INSERT INTO attestations VALUES (?, '0')", (nonce,))
    db.close()


def test_only_its_own_announcements(tmp_path: Path, opened: Callable[..., DlcOracle]) -> None:
    ours = opened(tmp_path)
    (tmp_path / "b").mkdir()
    stranger = opened(tmp_path / "b").announce("their own", 4, MATURITY)
    with pytest.raises(LocalProtocolError, match="did not make"):
        ours.attest(stranger, [1, 0, 0, 0])
    for junk in (b"", b"\xff" * 100):
        with pytest.raises(LocalProtocolError, match="did not make"):
            ours.attest(junk, [1])


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


def test_threads_agree_on_one_outcome(tmp_path: Path, opened: Callable[..., DlcOracle]) -> None:
    oracle = opened(tmp_path)
    tlv = oracle.announce(EVENT, 4, MATURITY)
    signed: list[bytes] = []
    start = threading.Barrier(4)

    def attest(level: int) -> None:
        start.wait()
        try:
            signed.append(oracle.attest(tlv, [1] * level + [0] * (4 - level)))
        except LocalProtocolError:
            pass

    threads = [threading.Thread(target=attest, args=(level,)) for level in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(signed) == 1


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


def test_endorsement_and_hash_chain(tmp_path: Path, opened: Callable[..., DlcOracle]) -> None:
    oracle, nostr = opened(tmp_path), NostrSigner(ROOT).pubkey
    assert oracle.pubkey != nostr
    assert verify_endorsement(oracle.pubkey, nostr, "run", oracle.endorse(nostr, "run"))
    assert not verify_endorsement(oracle.pubkey, nostr, "run 2", oracle.endorse(nostr, "run"))
    end = oracle.chain_end("run", 20)
    for index in (1, 2, 20):
        link = oracle.chain_link("run", 20, index)
        assert chain_reaches(link, index, end)
        assert not chain_reaches(link, index - 1, end)
    assert oracle.chain_end("run", 21) != Digest(end)
    for index in (0, 21):
        with pytest.raises(LocalProtocolError, match="hash chain of 20"):
            oracle.chain_link("run", 20, index)


def test_oracles_open_a_lock_end_to_end(tmp_path: Path, opened: Callable[..., DlcOracle]) -> None:
    """Announcements to TLV and back, a lock on them, attestations to TLV and back, and the preimage out of two of three."""
    oracles, announced, infos = {}, {}, []
    for j in (1, 2, 3):
        (tmp_path / str(j)).mkdir()
        oracles[j] = opened(tmp_path / str(j), RootSecret(bytes([j]) * 32))
        announced[j] = oracles[j].announce(EVENT, 4, MATURITY)
        read = dlc.parse_announcement_untrusted(announced[j])
        infos.append(LockOracle(j, read.pubkey, Digest(sha256_hex(announced[j])), read.event.nonces))
    ctx = LockContext("simnet", "run", EventId("a" * 64), Pubkey("c" * 64), Pubkey("b" * 64), 3, tuple(infos), Msat(1000))
    instance = expand(bytes(32), ctx, 2)
    shares = {}
    for j in (1, 3):
        attested = dlc.parse_attestation_untrusted(oracles[j].attest(announced[j], [1, 1, 1, 0]))
        assert dlc.verify_attestation(dlc.parse_announcement_untrusted(announced[j]), attested) == (1, 1, 1, 0)
        shares[j] = open_share(instance.public, ctx, j, [int(scalar, 16) for scalar in attested.scalars[:3]])
    assert combine(instance.public, shares, 2) == instance.preimage
