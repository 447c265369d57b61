"""What a run depends on goes away in mid-round, under real processes: the relay is killed, the blob server's disk is full. It goes on by itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nostrain.devnet import report
from nostrain.devnet.layout import Options
from nostrain.devnet.supervisor import open_devnet

pytest.importorskip("torch", reason="SKIPPED E2E: torch is not installed, so no engine can train (install the extra `torch`)")
SLOW = "SKIPPED E2E: outages under whole devnets take a minute of both cores; NOSTRAIN_E2E_ALL=1 runs them"
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300), pytest.mark.skipif(os.environ.get("NOSTRAIN_E2E_ALL") != "1", reason=SLOW)]


async def test_the_relay_is_killed_in_mid_round_and_has_forgotten_everything(tmp_path: Path, seed: int) -> None:
    """`kill -9` of the only relay once deltas are committed to; another one, empty, on its port once everybody has noticed."""
    lines: list[str] = []
    options = Options(rounds=2, workers=2, validators=2, seed=seed % 1000, paid=False)
    async with open_devnet(tmp_path, options, lines.append) as devnet:
        await devnet.wait_for(lambda: 1 in devnet.observer.rounds and "committed" in devnet.observer.rounds[1].seen)
        await devnet.kill("relay-1")
        begin = {one.name: one.log.stat().st_size for one in devnet.participants}
        await devnet.wait_for(lambda: all("next attempt in" in one.log.read_text()[begin[one.name] :] for one in devnet.participants))
        await devnet.restart_relay("relay-1")
        await devnet.wait_for(lambda: devnet.observer.done)
    assert report.agreement(devnet.observer) == [], "\n".join(lines)
    for number in (1, 2):
        result = devnet.observer.rounds[number].round.result
        assert result is not None
        assert len(result[1].accepted) == 2, "\n".join(lines)


def test_the_blob_servers_disk_is_full_in_mid_round(seed: int) -> None:
    """A tmpfs under the coordinator's blobs, full from the first announcement until a worker was told so."""
    command = ["unshare", "--user", "--map-root-user", "--mount", sys.executable, "-m", "tests.e2e.full_disk", str(seed % 1000)]
    if subprocess.run([*command[:4], "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here, not even in a namespace")
    ended = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    told = json.loads(ended.stdout.splitlines()[-1])
    assert told["faults"] == [], ended.stdout
    assert told["accepted"] == [2, 2], "nothing of the round was lost\n" + ended.stdout
    assert told["refused"] == ["worker-1", "worker-2"]
    assert told["blobs"] > 4
    assert told["damaged"] == []
