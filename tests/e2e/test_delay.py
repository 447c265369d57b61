"""A delayed run of real processes: everybody computes the same states, and the reference loop, which knows nothing of the daemons, too."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from nostrain.devnet.command import run
from nostrain.devnet.layout import Options

pytest.importorskip("torch", reason="SKIPPED E2E: torch is not installed, so no engine can train (install the extra `torch`)")
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(400),
    pytest.mark.skipif(not os.environ.get("NOSTRAIN_E2E_ALL"), reason="SKIPPED: a delayed devnet (15 s): NOSTRAIN_E2E_ALL=1 runs it"),
]


def test_a_delayed_run_is_paid_agrees_and_matches_the_reference(tmp_path: Path, seed: int) -> None:
    json_path = tmp_path / "report.json"
    options = Options(rounds=3, workers=2, validators=1, seed=seed % 1000, delay=1)
    code = run(options, keep=tmp_path / "devnet", json_path=json_path, with_reference=True)
    report = json.loads(json_path.read_text())
    assert code == 0, report["faults"]
    assert report["reference"]["match"] is True
    assert len(report["reference"]["rounds"]) == 3
    assert all(set(entry["workers"]) == {"worker-1", "worker-2"} for entry in report["rounds"])
    assert report["final_val_bpb"] < report["initial_val_bpb"] - 1
