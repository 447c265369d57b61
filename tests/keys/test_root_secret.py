"""The root secret's file and its derivations, and the event signer."""

from __future__ import annotations

import logging
import os
import pickle
import stat
from pathlib import Path

import pytest

from nostrain.crypto import schnorr
from nostrain.errors import ConfigError, LocalProtocolError
from nostrain.keys.oracle import DlcOracle
from nostrain.keys.signer import NostrSigner
from nostrain.keys.store import ROOT_FILE, RootSecret, open_root
from nostrain.protocol.event import Draft
from nostrain.units import UnixTime
from nostrain.wire.event import encode_event, parse_event_untrusted

ROOT = bytes(range(32))


def test_the_file_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "data"
    old = os.umask(0)
    try:
        made = open_root(folder)
    finally:
        os.umask(old)
    path = folder / ROOT_FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in folder.iterdir()] == [ROOT_FILE]
    assert open_root(folder).nostr_key() == made.nostr_key()
    assert open_root(tmp_path / "other").nostr_key() != made.nostr_key()


def test_a_rival_creation_wins_whole(tmp_path: Path) -> None:
    """Another process creates the file between our look and our link: its secret is the one that both use."""

    def draw(size: int) -> bytes:
        path = tmp_path / ROOT_FILE
        path.write_text(ROOT.hex() + "\n")
        path.chmod(0o600)
        return bytes(size)

    assert open_root(tmp_path, draw).nostr_key() == RootSecret(ROOT).nostr_key()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o610, 0o666])
def test_a_file_that_others_can_use_is_refused(tmp_path: Path, mode: int) -> None:
    open_root(tmp_path)
    (tmp_path / ROOT_FILE).chmod(mode)
    with pytest.raises(ConfigError, match="chmod 600") as caught:
        open_root(tmp_path)
    assert caught.value.key == "data_dir"


@pytest.mark.parametrize("text", ["", "00" * 31, "00" * 33, "ZZ" * 32, "\n" + "00" * 32, "00" * 32 + "\n\n", "0" * 1000])
def test_a_file_that_holds_something_else_is_refused_unshown(tmp_path: Path, text: str) -> None:
    path = tmp_path / ROOT_FILE
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="64 lowercase hex") as caught:
        open_root(tmp_path)
    assert not text.strip() or text.strip() not in str(caught.value)


def test_links_and_folders_in_its_place_are_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text(ROOT.hex())
    for name, make in {
        "link": lambda path: path.symlink_to(tmp_path / "elsewhere"),
        "dangling": lambda path: path.symlink_to(tmp_path / "nowhere"),
        "folder": lambda path: path.mkdir(),
    }.items():
        (tmp_path / name).mkdir()
        make(tmp_path / name / ROOT_FILE)
        with pytest.raises(ConfigError):
            open_root(tmp_path / name)
    assert not (tmp_path / "nowhere").exists()


def test_a_folder_that_cannot_be_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be used"):
        open_root(tmp_path / "file" / "data")


def test_derived_secrets_are_unrelated() -> None:
    root, other = RootSecret(ROOT), RootSecret(ROOT[::-1])
    derived = [
        value
        for r in (root, other)
        for value in (
            r.nostr_key(),
            r.oracle_key(),
            r.nonce_secret(b"g"),
            r.nonce_secret(b"h"),
            r.chain_seed("run", 5),
            r.chain_seed("run", 6),
            r.chain_seed("other", 5),
        )
    ]
    assert len({ROOT, ROOT[::-1], *derived}) == 16
    with pytest.raises(ValueError, match="32 bytes"):
        RootSecret(ROOT[:-1])


def test_no_secret_is_ever_printed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nor formatted, logged, found among an object's attributes or pickled."""
    root = RootSecret(ROOT)
    oracle = DlcOracle(root, tmp_path)
    tlv = oracle.announce("event", 2, UnixTime(1))
    shown = []
    for thing in (root, NostrSigner(root), oracle):
        with caplog.at_level(logging.DEBUG):
            logging.getLogger("test").warning("%s %r", thing, thing)
        shown += [repr(thing), str(thing), f"{thing}", repr(getattr(thing, "__dict__", ""))]
        with pytest.raises(TypeError):
            pickle.dumps(thing)
    for refused in (lambda: oracle.attest(tlv, [2, 2]), lambda: oracle.attest(tlv[:-1], [1, 0])):
        with pytest.raises(LocalProtocolError) as caught:
            refused()
        shown.append(str(caught.value))
    text = " ".join(shown) + caplog.text
    secrets = [ROOT, root.nostr_key(), root.oracle_key(), root.chain_seed("run", 5)]
    assert "RootSecret(hidden)" in text
    assert not [secret for secret in secrets if secret.hex() in text or repr(secret)[2:-1] in text or str(int.from_bytes(secret)) in text]
    oracle.close()


def test_signed_events_are_valid_and_repeatable() -> None:
    signer = NostrSigner(RootSecret(ROOT))
    draft = Draft(UnixTime(1_700_000_000), 8652, (("d", "run"), ("t", "nostrain")), 'a "quoted"\nline – ü')
    event = signer.sign(draft)
    assert parse_event_untrusted(encode_event(event)) == event
    assert signer.sign(draft) == event
    assert event.pubkey == signer.pubkey == schnorr.public_key(RootSecret(ROOT).nostr_key()).hex()
    assert signer.sign(Draft(UnixTime(1_700_000_001), *[getattr(draft, f) for f in ("kind", "tags", "content")])).id != event.id
    with pytest.raises(LocalProtocolError):
        signer.sign(Draft(UnixTime(1), 70_000, (), ""))
