"""`coordinator.run.delay`: 0 or 1, and a manifest says it only when it is 1."""

from __future__ import annotations

from pathlib import Path

import pytest

from nostrain.config.load import load_config
from nostrain.errors import ConfigError
from tests.config.test_load import COORDINATOR, write


@pytest.mark.parametrize(("text", "delay"), [((), 0), (("coordinator.run.delay=1",), 1)])
def test_a_run_has_a_delay_of_one_round_or_none(tmp_path: Path, text: tuple[str, ...], delay: int) -> None:
    config = load_config(write(tmp_path, COORDINATOR), text)
    assert config.coordinator is not None
    assert config.coordinator.run.delay == delay


def test_two_rounds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"coordinator\.run\.delay"):
        load_config(write(tmp_path, COORDINATOR), ("coordinator.run.delay=2",))
