"""docs/nostr.md names tests that are there."""

from __future__ import annotations

import re
from pathlib import Path


def test_every_behaviour_on_the_page_has_its_test() -> None:
    here = Path(__file__).parent
    page = (here.parents[1] / "docs" / "nostr.md").read_text()
    named = set(re.findall(r"`(test_\w+)`", page))
    defined = {name for file in here.glob("test_*.py") for name in re.findall(r"def (test_\w+)\(", file.read_text())}
    assert len(named) >= 30
    assert not named - defined
