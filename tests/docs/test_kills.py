"""The table of kills in docs/operating.md: every test that it names is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_kill_has_its_test() -> None:
    section = (ROOT / "docs" / "operating.md").read_text().split("### The ten most dangerous kills", 1)[1].split("\n## ", 1)[0]
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", section)
    rows = [line for line in section.splitlines() if line.startswith("| ") and "---" not in line][1:]
    assert len(rows) == 10
    for file, test in named:
        assert f"async def {test}(" in (ROOT / "tests" / "regtest" / file).read_text(), (file, test)
