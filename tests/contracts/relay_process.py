"""nostr-sdk's relay in a process of its own, and authors whose events tests can tell apart on it."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

from coincurve import PrivateKey, PublicKeyXOnly

from nostrain.protocol.event import Draft, Event, Filter
from nostrain.units import Pubkey, UnixTime
from nostrain.wire.event import event_id

PATIENCE_S = 10


class Author:
    """Signs events; one a test, so that tests can share a relay."""

    def __init__(self, name: str) -> None:
        secret = hashlib.sha256(name.encode()).digest()
        self._key = PrivateKey(secret)
        self.pubkey = Pubkey(PublicKeyXOnly.from_secret(secret).format().hex())

    def note(self, content: str, *, kind: int = 8650, created_at: int = 1_700_000_000, tags: tuple[tuple[str, ...], ...] = ()) -> Event:
        draft = Draft(UnixTime(created_at), kind, tags, content)
        digest = event_id(self.pubkey, draft)
        sig = self._key.sign_schnorr(bytes.fromhex(digest), bytes(32)).hex()
        return Event(digest, self.pubkey, draft.created_at, kind, tags, content, sig)

    @property
    def all(self) -> Filter:
        return Filter(authors=(self.pubkey,))


class RelayProcess:
    """`python -m nostrain.devnet.relay`, started and stopped."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._port_file = folder / "port"
        command = [sys.executable, "-m", "nostrain.devnet.relay", "--port-file", str(self._port_file), *options]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.url = self._line(self._process.stdout)
        assert self._port_file.read_text() == self.url

    @staticmethod
    def _line(stream: IO[str] | None) -> str:
        assert stream is not None
        return stream.readline().strip()

    def stop(self, how: signal.Signals | None = signal.SIGTERM) -> int:
        """End it by a signal, or by closing its standard input; its exit code."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if how is not None:
            self._process.send_signal(how)
        self._process.stdin.close()
        code = self._process.wait(PATIENCE_S)
        self._process.stdout.close()
        return code
