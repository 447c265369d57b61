"""Relays that cannot be reached say nothing: `nostrain-ctl` does not take their silence for an answer."""

from __future__ import annotations

import pytest
from click.testing import CliRunner
from trio.testing import MockClock

from nostrain.ctl.main import main
from nostrain.devnet import finder, stranger
from nostrain.errors import Unavailable
from nostrain.units import UnixTime
from tests.docs.examples import START
from tests.nostr.scripted_relay import ScriptedRelay, dial

NOBODY = "ws://127.0.0.1:9"


async def test_runs_are_not_none_when_no_relay_was_reached(autojump_clock: MockClock) -> None:
    away, other = ScriptedRelay(), ScriptedRelay()
    away.down = other.down = True
    with pytest.raises(Unavailable, match="ws://away, ws://other: not reached"):
        await finder.find_runs(["ws://away", "ws://other"], UnixTime(START), connect=dial(away=away, other=other))
    other.down = False
    assert await finder.find_runs(["ws://away", "ws://other"], UnixTime(START), connect=dial(away=away, other=other)) == []


@pytest.mark.parametrize("command", [("run", "list"), ("audit", "--run", "ab" * 32)], ids=" ".join)
def test_the_command_was_not_done(command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (finder, stranger):
        monkeypatch.setattr(module, "CONNECT_S", 0.2)
    ran = CliRunner().invoke(main, [*command, "--relay", NOBODY])
    assert ran.exit_code == 1
    assert ran.stdout == ""
    assert ran.stderr == f"Error: {NOBODY}: not reached\n"
