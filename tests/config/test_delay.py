"""`coordinator.run.delay` and what validators read, which decides whether training or scoring takes longer."""

from __future__ import annotations

from pathlib import Path

import pytest

from nostrain.config.load import load_config
from nostrain.errors import ConfigError
from nostrain.protocol.manifest import ScoringSpec
from tests.config.files import COORDINATOR, write


@pytest.mark.parametrize(("text", "delay"), [((), 0), (("coordinator.run.delay=1",), 1)])
def test_a_run_has_a_delay_of_one_round_or_none(tmp_path: Path, text: tuple[str, ...], delay: int) -> None:
    config = load_config(write(tmp_path, COORDINATOR), text)
    assert config.coordinator is not None
    assert config.coordinator.run.delay == delay


def test_two_rounds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"coordinator\.run\.delay"):
        load_config(write(tmp_path, COORDINATOR), ("coordinator.run.delay=2",))


def test_what_validators_read_becomes_the_manifests(tmp_path: Path) -> None:
    key = "coordinator.run.scoring"
    config = load_config(write(tmp_path, COORDINATOR), (f"{key}.unassigned_tokens=8192", f"{key}.validation_tokens=4096"))
    assert config.coordinator is not None
    assert config.coordinator.run.scoring.spec() == ScoringSpec(unassigned_tokens=8192, validation_tokens=4096)
    for text in (f"{key}.unassigned_tokens=131072", f"{key}.assigned_tokens=10"):
        with pytest.raises(ConfigError, match=r"coordinator\.run\.scoring"):
            load_config(write(tmp_path, COORDINATOR), (text,))
