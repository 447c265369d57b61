"""`nostrain-ctl wallet rune`: what a configuration needs of lightningd, as the command that grants it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from nostrain.ctl.main import main
from nostrain.lightning.rights import Use, restrictions

RUN = '[coordinator.run]\nname = "r"\nrounds = 1\n'
BLOBS = '[lightning]\nsocket = "/rpc"\n[blobs]\npay_sat = 5\n[blobs.prices.upload]\nsat = 1\n'
ASKED = {Use.READ}


@pytest.mark.parametrize(
    ("roles", "tables", "uses"),
    [
        ('"worker"', "", {Use.PAY, Use.HOLD}),
        ('"validator"', "", {Use.OFFER}),
        ('"coordinator", "blobs"', RUN, {Use.PAY, Use.FETCH, Use.INVOICE}),
        ('"coordinator", "blobs"', RUN + "[coordinator.channels]\nopen = true\nmax_total_sat = 9\n", None),
        ('"blobs"', BLOBS, {Use.PAY, Use.INVOICE}),
    ],
)
def test_the_command_has_the_restrictions_of_the_roles(tmp_path: Path, roles: str, tables: str, uses: set[Use] | None) -> None:
    path = tmp_path / "nostraind.toml"
    path.write_text(f'name = "n"\ndata_dir = "d"\nroles = [{roles}]\nrelays = ["ws://r.example"]\n{tables}')
    shown = CliRunner().invoke(main, ["wallet", "rune", "--config", str(path), "--max-payment-sat", "50"])
    if uses is None:  # its budget contradicts itself: what the daemon would not start with is not granted anything
        assert shown.exit_code == 1
        assert "coordinator." in shown.output
        return
    assert shown.exit_code == 0, shown.output
    command = shlex.split(shown.output.splitlines()[-1])
    assert command[:2] == ["lightning-cli", "createrune"]
    assert json.loads(command[2].removeprefix("restrictions=")) == restrictions(ASKED | uses, 50)
    for_programs = CliRunner().invoke(main, ["wallet", "rune", "--config", str(path), "--max-payment-sat", "50", "--json"])
    found = json.loads(for_programs.output)
    assert found == {"uses": [use.value for use in Use if use in ASKED | uses], "restrictions": restrictions(ASKED | uses, 50)}
