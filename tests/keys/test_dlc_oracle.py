"""The oracle: announces, attests each digit once, and its attestations open a lock."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from nostrain.crypto.lock import LockContext, LockOracle, combine, expand, open_share
from nostrain.crypto.oracle import verify_endorsement
from nostrain.errors import LocalProtocolError
from nostrain.hashes import sha256_hex
from nostrain.keys.journal import DATABASE_FILE
from nostrain.keys.oracle import DlcOracle
from nostrain.keys.signer import NostrSigner
from nostrain.keys.store import RootSecret
from nostrain.protocol.digests import chain_reaches
from nostrain.units import Digest, EventId, Msat, Pubkey, UnixTime
from nostrain.wire import dlc
from tests.keys.conftest import EVENT, MATURITY, ROOT


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
