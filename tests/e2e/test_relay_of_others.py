"""A devnet over a relay that it did not start, on which there is another run already: nostr-sdk's relay in a process of its own."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
import trio

from nostrain.devnet.processes import Processes, start_relay

pytest.importorskip("torch", reason="SKIPPED E2E: torch is not installed, so no engine can train (install the extra `torch`)")
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(400),
    pytest.mark.skipif(
        not os.environ.get("NOSTRAIN_E2E_ALL"), reason="SKIPPED: two devnets over one relay (40 s): NOSTRAIN_E2E_ALL=1 runs it"
    ),
]


async def test_two_devnets_one_after_the_other_share_a_relay_that_is_not_theirs(tmp_path: Path) -> None:
    processes = Processes()
    try:
        url = await start_relay(processes, tmp_path, "relay")
        for number in (1, 2):
            json_path = tmp_path / f"{number}.json"
            options = ["--rounds", "2", "--workers", "2", "--validators", "1", "--relay", url, "--json", str(json_path), "--reference"]
            done = await trio.run_process([sys.executable, "-m", "nostrain.ctl", "devnet", *options], check=False)
            report = json.loads(json_path.read_text())
            assert done.returncode == 0, report["faults"]
            assert report["reference"]["match"] is True
    finally:
        await processes.stop_all()
