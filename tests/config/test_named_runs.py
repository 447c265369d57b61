"""How a configuration names keys and runs: hex, npub, nevent."""

from __future__ import annotations

from pathlib import Path

import pytest

from nostrain.config import load_config
from nostrain.config.runs import joined_run
from nostrain.errors import ConfigError
from nostrain.protocol.discovery import RunAddress
from nostrain.units import EventId, Pubkey
from nostrain.wire.nip19_run import nevent
from tests.config.files import COORDINATOR, WORKER, paid, refused, write


def test_the_only_validators_can_be_named(tmp_path: Path) -> None:
    text = COORDINATOR.replace("min_validators = 3\nthreshold = 2", f'min_validators = 1\nthreshold = 1\nvalidators = ["{"ab" * 32}"]')
    config = load_config(write(tmp_path, text))
    assert config.coordinator is not None
    assert config.coordinator.run.validators == ("ab" * 32,)
    with pytest.raises(ConfigError, match="validators"):
        load_config(write(tmp_path, text.replace("ab" * 32, "npub1")))


THREE = ",".join(f"{n:064x}" for n in range(3))


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        ((*paid(6400), "coordinator.run.validators=[]"), "whoever enrols could be one"),
        ((*paid(6400), f"coordinator.run.validators=any,{THREE}"), "any beside keys"),
        ((*paid(6400), f"coordinator.run.validators={'ab' * 32},{'cd' * 32}"), "2 named, 3 have to enrol"),
        ((f"coordinator.run.validators={'ab' * 32},{'ab' * 32},{'ab' * 32}",), "1 named, 3 have to enrol"),
    ],
)
def test_a_run_that_pays_says_who_its_validators_are(tmp_path: Path, overrides: tuple[str, ...], reason: str) -> None:
    error = refused(write(tmp_path, COORDINATOR), overrides)
    assert error.key == "coordinator.run.validators"
    assert reason in error.reason


@pytest.mark.parametrize("overrides", [(), paid(6400), (*paid(6400), f"coordinator.run.validators={THREE}")])
def test_a_run_that_does_not_pay_may_leave_it_open_and_one_that_does_says_so(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    assert load_config(write(tmp_path, COORDINATOR), overrides).coordinator is not None


NPUB, HEX = (
    "npub180cvv07tjdrrgpa0j7j7tmnyl2yr6yr7l8j4s3evf6u64th6gkwsyjh6w6",
    "3bf0c63fcb93463407af97a5e5ee64fa883d107ef9e558472c4eb9aaaefa459d",
)


def test_public_keys_may_be_npubs(tmp_path: Path) -> None:
    config = load_config(
        write(tmp_path, COORDINATOR),
        [f"coordinator.run.validators={NPUB},{'ab' * 32}", "coordinator.run.min_validators=2", f"join.coordinator={NPUB}"],
    )
    assert config.join.coordinator == HEX
    assert config.coordinator is not None
    assert config.coordinator.run.validators == (HEX, "ab" * 32)


@pytest.mark.parametrize("key", ["join.coordinator", "coordinator.run.validators"])
def test_a_mistyped_npub_is_named(tmp_path: Path, key: str) -> None:
    error = refused(write(tmp_path, COORDINATOR), (f"{key}={NPUB[:-1]}q",))
    assert error.key == key
    assert "checksum" in error.reason


ADDRESS = RunAddress(EventId("ab" * 32), Pubkey(HEX), ("wss://relay.example",))


def test_a_run_may_be_named_by_its_nevent(tmp_path: Path) -> None:
    assert joined_run(load_config(write(tmp_path, WORKER), ["join.run=any"])) is None
    assert joined_run(load_config(write(tmp_path, WORKER), [f"join.run={ADDRESS.run}"])) == RunAddress(ADDRESS.run)
    assert joined_run(load_config(write(tmp_path, WORKER), [f"join.run={nevent(ADDRESS)}"])) == ADDRESS
    with_coordinator = [f"join.run={ADDRESS.run}", f"join.coordinator={NPUB}"]
    assert joined_run(load_config(write(tmp_path, WORKER), with_coordinator)) == RunAddress(ADDRESS.run, ADDRESS.coordinator)


def test_an_nevent_and_a_coordinator_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    overrides = (f"join.run={nevent(ADDRESS)}", f"join.coordinator={'cd' * 32}")
    assert refused(write(tmp_path, WORKER), overrides).key == "join.coordinator"
    assert load_config(write(tmp_path, WORKER), [f"join.run={nevent(ADDRESS)}", f"join.coordinator={NPUB}"]).join.coordinator == HEX
