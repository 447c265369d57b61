"""`kill -9` in the middle of commits: what was acknowledged is there, and at most the batch in flight besides."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from nostrain.journal import SqliteJournal

WRITER = """
import sys
from pathlib import Path
from nostrain.journal import SqliteJournal
from nostrain.ports.journal import Batch

journal = SqliteJournal.open(Path(sys.argv[1]))
number = int(journal.load().get("last", b"0"))
while True:
    number += 1
    value = b"%d" % number
    journal.commit(Batch(inputs=(value,), rows={"last": value, f"part/{number % 7}": value * 300}))
    print(number, flush=True)
"""


@pytest.mark.parametrize("life", [1, 2])
def test_every_acknowledged_commit_survives_and_none_is_half(tmp_path: Path, rng: Random, life: int) -> None:
    path = tmp_path / "journal.db"
    for _ in range(life):
        acknowledged = commit_until_killed(path, after=rng.randrange(5, 60))
        with SqliteJournal.open(path) as journal:
            rows, inputs = journal.load(), [int(value) for _, value in journal.inputs()]
        last = int(rows["last"])
        assert last in {acknowledged, acknowledged + 1}
        assert inputs == list(range(1, last + 1))
        assert rows[f"part/{last % 7}"] == b"%d" % last * 300


def commit_until_killed(path: Path, after: int) -> int:
    """The number that the writer had acknowledged last when it was killed, some time after it had acknowledged `after` commits."""
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        for _ in range(after):
            assert writer.stdout.readline()
        writer.kill()
        rest = writer.stdout.read()
        assert writer.wait() == -signal.SIGKILL
    seen = rest.splitlines() if rest.endswith(b"\n") else rest.splitlines()[:-1]
    if seen:
        return int(seen[-1])
    with SqliteJournal.open(path) as journal:
        return int(journal.load()["last"])
