"""What a coordinator's daemon makes of the dataset and the checkpoint that its configuration names, before the engine sees them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import msgspec
import pytest

from nostrain.config.blobs import BlobsConfig
from nostrain.config.schema import CoordinatorConfig, DaemonConfig, RunConfig
from nostrain.daemon.compose import run_plan
from nostrain.daemon.dataset import curations_of
from nostrain.errors import ConfigError
from nostrain.protocol.event import Event
from nostrain.units import Digest, UnixTime
from nostrain.wire.curation import MAX_CURATIONS, curation_draft
from nostrain.wire.event import encode_event
from tests.docs.examples import VALIDATORS, WORKERS

CURATORS = [*VALIDATORS, *WORKERS]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "dataset.json").write_bytes(b"{}")
    return tmp_path


def signed(folder: Path, count: int) -> list[Event]:
    """The dataset, signed by so many."""
    digest = Digest(hashlib.sha256((folder / "dataset.json").read_bytes()).hexdigest())
    events = [party.signer.sign(curation_draft(digest, "", UnixTime(1))) for party in CURATORS[:count]]
    (folder / "curations.jsonl").write_bytes(b"".join(encode_event(event) + b"\n" for event in events))
    return events


def run(folder: Path, *curators: str) -> RunConfig:
    return RunConfig(name="run", rounds=1, dataset=str(folder), curators=curators)


def test_without_signatures_there_are_none(folder: Path) -> None:
    assert curations_of(run(folder)) == ()


def test_whoever_signed_is_named_but_no_more_than_a_manifest_has_room_for(folder: Path) -> None:
    assert curations_of(run(folder)) == ()
    events = signed(folder, 6)
    assert curations_of(run(folder)) == tuple(events[:MAX_CURATIONS])


def test_of_named_curators_one_has_to_have_signed(folder: Path) -> None:
    events = signed(folder, 6)
    assert curations_of(run(folder, CURATORS[5].pubkey)) == (events[5],)
    signed(folder, 2)
    with pytest.raises(ConfigError, match="none of the curators signed"):
        curations_of(run(folder, CURATORS[5].pubkey))


def test_a_dataset_that_changed_after_it_was_signed_is_refused(folder: Path) -> None:
    signed(folder, 1)
    (folder / "dataset.json").write_bytes(b"{ }")
    with pytest.raises(ConfigError, match=r"curations\.jsonl, line 1.*is not of the dataset"):
        curations_of(run(folder))


def daemon(run: RunConfig) -> DaemonConfig:
    return DaemonConfig(
        "c", "/tmp/c", ("coordinator", "blobs"), ("ws://127.0.0.1:1",), blobs=BlobsConfig(), coordinator=CoordinatorConfig(run)
    )


def test_the_plan_has_absolute_folders_and_the_learning_rate(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "config.json").write_text(json.dumps({}))
    monkeypatch.chdir(tmp_path)
    named = msgspec.structs.replace(run(folder), dataset=".", init=".", learning_rate_ppb=5)
    plan = run_plan(daemon(named), (), tmp_path)
    assert plan is not None
    assert (plan.dataset, plan.init, plan.text) == (str(tmp_path), str(tmp_path), None)
    assert plan.training.learning_rate_ppb == 5


@pytest.mark.parametrize(("key", "reason"), [("dataset", "dataset.json"), ("init", "no config.json in it")])
def test_a_folder_that_is_something_else_is_refused_at_once(tmp_path: Path, key: str, reason: str) -> None:
    named = RunConfig(name="run", rounds=1, **{key: str(tmp_path)})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=reason) as caught:
        run_plan(daemon(named), (), tmp_path)
    assert caught.value.key == f"coordinator.run.{key}"
    plan = run_plan(daemon(named), (), tmp_path, published=True)
    assert plan is not None, "a run that is published does not need it any more"
