"""The report: the JSON that the issue demands, the table, what counts as a failure."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from nostrain.devnet import report, table
from nostrain.devnet.observer import PHASES, Observer
from nostrain.units import Digest
from nostrain.wire import kinds
from tests.devnet.recorded import ROUNDS, VALIDATORS, WORKERS, Recording, recording

RUN_KEYS = {"schema", "initial_val_bpb", "final_val_bpb", "utilization", "rounds", "balances", "faults"}
ROUND_KEYS = {"round", "val_bpb", "ratio_fp32", "bytes", "seconds", "digests", "workers"}
WORKER_KEYS = {"score_ppm", "level", "reward_msat", "fee_msat", "reason"}
BALANCE_KEYS = {"before_msat", "after_msat", "held_msat", "routing_msat"}


@pytest.fixture(scope="module")
def recorded() -> Recording:
    return recording()


@pytest.fixture
def observer(recorded: Recording) -> Observer:
    return recorded.watched()[0]


@pytest.fixture
def written(recorded: Recording, observer: Observer, tmp_path: Path) -> Any:
    """The report as read back from its file."""
    report.write(report.build(observer, recorded.participants, {}), tmp_path / "r.json")
    return json.loads((tmp_path / "r.json").read_text())


def test_it_has_exactly_the_demanded_keys_and_a_few_more(written: Any) -> None:
    assert set(written) >= RUN_KEYS
    assert set(written) - RUN_KEYS == {"paid", "events"}
    assert written["schema"] == 1
    assert [entry["round"] for entry in written["rounds"]] == list(range(1, ROUNDS + 1))
    for entry in written["rounds"]:
        assert set(entry) - ROUND_KEYS == {"state_ids", "fee_msat", "validators"}
        assert set(entry) >= ROUND_KEYS
        assert set(entry["workers"]) == {f"worker-{index}" for index in range(1, WORKERS + 1)}
        assert all(set(worker) == WORKER_KEYS for worker in entry["workers"].values())
    assert all(set(balance) == BALANCE_KEYS for balance in written["balances"].values())


def test_its_values_have_the_demanded_types(written: Any) -> None:
    assert isinstance(written["initial_val_bpb"], float)
    assert written["final_val_bpb"] == written["rounds"][-1]["val_bpb"] < written["initial_val_bpb"]
    assert 0 <= written["utilization"] <= 1
    names = {"coordinator", *(f"validator-{i}" for i in range(1, VALIDATORS + 1)), *(f"worker-{i}" for i in range(1, WORKERS + 1))}
    assert set(written["balances"]) == names
    for entry in written["rounds"]:
        assert set(entry["digests"]) == names
        assert len(set(entry["digests"].values())) == 1
        assert list(entry["seconds"]) == list(PHASES.values())
        assert isinstance(entry["bytes"], int)
        assert isinstance(entry["ratio_fp32"], float)
        assert entry["validators"] == {f"validator-{i}": {"share_msat": 0} for i in range(1, VALIDATORS + 1)}
        for worker in entry["workers"].values():
            assert worker["level"] in range(5)
            assert isinstance(worker["score_ppm"], int)
            assert worker["reason"] is None
            assert worker["reward_msat"] == worker["fee_msat"] == 0


def test_a_run_that_never_began_is_a_report_too(recorded: Recording) -> None:
    observer, _ = recorded.watched(0)
    built = report.build(observer, recorded.participants, {})
    assert built["rounds"] == []
    assert built["final_val_bpb"] is None
    assert built["utilization"] == 0
    assert report.agreement(observer) == ["no run was published"]


def test_a_whole_run_has_no_problems(observer: Observer) -> None:
    assert report.agreement(observer) == []


def test_a_missing_digest_is_found_and_named(recorded: Recording) -> None:
    place = next(
        place
        for place, event in enumerate(recorded.events)
        if event.kind == kinds.CONFIRMATION and recorded.names[event.pubkey] == "worker-2" and '"round":1' in event.content
    )
    observer, _ = recorded.watched(without=frozenset({place}))
    assert report.agreement(observer) == ["round 1: no confirmation by worker-2"]


@pytest.mark.parametrize("field", ["root", "state_id"])
def test_a_differing_digest_is_found_and_named(recorded: Recording, observer: Observer, field: str) -> None:
    key = next(key for key, name in recorded.names.items() if name == "validator-3")
    watched = observer.rounds[2]
    watched.confirmations[key] = msgspec.structs.replace(watched.confirmations[key], **{field: Digest("0" * 64)})
    assert report.agreement(observer) == ["round 2: another state was computed by validator-3"]
    entry = report.build(observer, recorded.participants, {})["rounds"][1]
    if field == "root":
        assert table.digest_cell(entry["digests"]) == "2 DIFFER"


def test_a_round_that_was_not_closed_is_found(recorded: Recording) -> None:
    results = [place for place, event in enumerate(recorded.events) if event.kind == kinds.RESULT]
    observer, _ = recorded.watched(results[-1])
    assert report.agreement(observer) == [f"round {ROUNDS} was not closed"]


def test_a_halted_run_is_a_failure(observer: Observer) -> None:
    assert observer.run is not None
    rows = {**observer.state.rows, "run": msgspec.structs.replace(observer.run, halted="a fork")}
    observer.state = msgspec.structs.replace(observer.state, rows=rows)
    assert report.agreement(observer) == ["the run was halted: a fork"]


def shown(data: dict[str, Any]) -> str:
    console = Console(width=table.WIDTH, file=io.StringIO())
    table.show(data, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def worker(score_ppm: int, reason: str | None = None) -> dict[str, Any]:
    return {"score_ppm": score_ppm, "level": 0 if reason else 4, "reward_msat": 0, "fee_msat": 0, "reason": reason}


def test_the_table_says_whose_score_it_is(recorded: Recording, observer: Observer) -> None:
    text = shown(report.build(observer, recorded.participants, {}))
    header = next(line for line in text.splitlines() if "bits/byte" in line)
    assert [name for name in header.replace("┃", " ").split() if name.startswith("worker")] == ["worker-1", "worker-2", "worker-3"]
    assert f"×{1 + WORKERS + VALIDATORS}" in text


@pytest.mark.parametrize("workers", [1, 4, 5, 8, 16])
def test_the_table_is_never_too_wide_and_nothing_is_cut(recorded: Recording, observer: Observer, workers: int) -> None:
    data = report.build(observer, recorded.participants, {})
    for entry in data["rounds"]:
        entry["workers"] = {f"worker-{index}": worker(-1_000_000 + index) for index in range(1, workers)}
        entry["workers"][f"worker-{workers}"] = worker(-1_000_000, "a reason")
        entry["seconds"] = {"train": 1234.5}
        entry["ratio_fp32"] = 12345.0
    text = shown(data)
    assert max(map(len, text.splitlines())) <= 100
    assert "…" not in text
    for index in range(1, workers):
        assert f"worker-{index}" in text
    assert "✗ -1.00" in text


def test_a_worker_that_came_later_has_empty_cells(recorded: Recording, observer: Observer) -> None:
    data = report.build(observer, recorded.participants, {})
    del data["rounds"][0]["workers"]["worker-3"]
    assert table.worker_cell(data["rounds"][0]["workers"].get("worker-3")) == ""
    assert table.worker_names(data) == ["worker-1", "worker-2", "worker-3"]
    assert table.worker_names({"rounds": [{"workers": {"worker-10": 1, "worker-9": 1}}]}) == ["worker-9", "worker-10"]
