"""All commands of `nostrain-ctl` side by side: the same options mean the same everywhere, and their help can be read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from nostrain.ctl.main import main


def commands(group: click.Group = main, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every group and command, with the words that lead to it."""
    yield path, group
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


ALL = dict(commands())
LEAVES = {path: command for path, command in ALL.items() if not isinstance(command, click.Group)}
OTHER_FORMAT = {("metrics",): "Prometheus' text", ("devnet",): "a table, and the report in a file"}


def option(command: click.Command, name: str) -> click.Option | None:
    found = [one for one in command.params if isinstance(one, click.Option) and name in one.opts]
    return found[0] if found else None


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_help_is_whole(path: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(main, [*path, "--help"])
    assert shown.exit_code == 0
    assert "..." not in shown.output.replace("[ARGS]...", "").replace("INPUTS...", ""), "click cuts what is too long for a line"
    assert all(one.help for one in ALL[path].params if isinstance(one, click.Option))
    assert CliRunner().invoke(main, [*path, "-h"]).output == shown.output


@pytest.mark.parametrize("path", sorted(LEAVES.keys() - OTHER_FORMAT.keys()), ids=" ".join)
def test_what_prints_an_answer_prints_it_as_json_too(path: tuple[str, ...]) -> None:
    found = option(LEAVES[path], "--json")
    assert found is not None
    assert found.is_flag
    assert "amounts are in msat" in (found.help or "")


@pytest.mark.parametrize("name", ["--control", "--relay"])
def test_an_option_is_the_same_in_every_command(name: str) -> None:
    found = [one for command in ALL.values() if (one := option(command, name)) is not None]
    assert len(found) > 1
    assert len({(one.name, one.multiple, one.metavar, str(one.envvar), repr(one.type)) for one in found}) == 1


def test_options_before_a_subcommand_are_not_ignored() -> None:
    for options in (["--json"], ["--control", "elsewhere"]):
        ran = CliRunner().invoke(main, ["wallet", *options, "plan"])
        assert ran.exit_code == 2
        assert "nostrain-ctl wallet plan" in ran.stderr


def test_without_daemon_and_relay_both_ways_out_are_said(tmp_path: Path) -> None:
    for command in (["list"], ["show", "ab" * 32]):
        ran = CliRunner().invoke(main, ["run", *command, "--control", str(tmp_path / "s")])
        assert ran.exit_code == 1
        assert len(ran.stderr.splitlines()) == 1
        assert "NOSTRAIN_CONTROL" in ran.stderr
        assert "--relay" in ran.stderr


def test_exit_codes_are_in_the_help() -> None:
    shown = CliRunner().invoke(main, ["--help"]).output
    assert [code for code in (0, 1, 2, 3, 130) if f"{code} " not in shown.partition("Exit codes:")[2]] == []


def test_json_is_one_line(tmp_path: Path) -> None:
    empty = tmp_path / "events.jsonl"
    empty.write_bytes(b"")
    ran = CliRunner().invoke(main, ["audit", str(empty), "--json"])
    assert ran.exit_code == 0
    assert json.loads(ran.stdout) == {"events": 0, "proofs": [], "disputes": []}
    assert len(ran.stdout.splitlines()) == 1
