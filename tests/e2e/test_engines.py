"""Workers and validators of both engines in one run of real processes: one state a round, repeated by the reference."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from nostrain.devnet.command import run
from nostrain.devnet.layout import Options

pytest.importorskip("torch", reason="SKIPPED E2E: torch is not installed, so no engine can train (install the extra `torch`)")
pytest.importorskip("mlx.core", reason="SKIPPED E2E: mlx is not installed (install the extra `mlx`)")
SLOW = "SKIPPED E2E: a devnet of two engines takes 45 s of both cores, too much for every run; NOSTRAIN_E2E_ALL=1 runs it"
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(300),
    pytest.mark.skipif(os.environ.get("NOSTRAIN_E2E_ALL") != "1", reason=SLOW),
]


def test_both_engines_compute_the_same_states(tmp_path: Path, seed: int) -> None:
    """The work of each is used in every round; who recomputes the state with which engine makes no difference."""
    json_path = tmp_path / "report.json"
    options = Options(rounds=2, workers=2, validators=2, seed=seed % 1000, paid=False, engines=("pytorch", "mlx"))
    code = run(options, keep=tmp_path / "devnet", json_path=json_path, with_reference=True)
    report = json.loads(json_path.read_text())
    assert code == 0, report["faults"]
    assert report["reference"]["match"] is True
    for entry in report["rounds"]:
        assert len(entry["digests"]) == 5
        assert len(set(entry["digests"].values())) == 1
        assert {name for name, one in entry["workers"].items() if one["level"]} == {"worker-1", "worker-2"}
    assert report["final_val_bpb"] < report["initial_val_bpb"] - 1
    for number, kind in ((1, "pytorch"), (2, "mlx")):
        for role in ("worker", "validator"):
            assert f'kind = "{kind}"' in (tmp_path / "devnet" / f"{role}-{number}" / "nostraind.toml").read_text()
