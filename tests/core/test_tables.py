"""The transition tables: what is legal, what is reachable, and that docs/states.md shows them as they are."""

from __future__ import annotations

import runpy
from enum import Enum
from pathlib import Path

import pytest

from nostrain.core import tables
from nostrain.core.tables import MACHINES, advance
from nostrain.errors import IllegalTransition

ROOT = Path(__file__).parents[2]
STATES = [(name, state) for name, table in MACHINES.items() for state in table]
PAIRS = [(name, old, new) for name, table in MACHINES.items() for old in table for new in table]


@pytest.mark.parametrize(("name", "old", "new"), PAIRS, ids=lambda value: getattr(value, "name", value))
def test_advance_takes_what_the_table_says_and_nothing_else(name: str, old: Enum, new: Enum) -> None:
    if new is old or new in MACHINES[name][old]:
        assert advance(name, old, new) is new
    else:
        with pytest.raises(IllegalTransition, match=f"{name}: {old.name} → {new.name}"):
            advance(name, old, new)


@pytest.mark.parametrize("name", MACHINES)
def test_every_state_is_in_its_table_and_can_be_reached_from_the_first(name: str) -> None:
    table = MACHINES[name]
    kind = type(next(iter(table)))
    assert set(table) == set(kind)
    reached, edge = set(), {next(iter(kind))}
    while edge:
        reached |= edge
        edge = {after for state in edge for after in table[state]} - reached
    assert reached == set(kind)


@pytest.mark.parametrize("name", MACHINES)
def test_no_table_has_a_cycle_but_the_replicas(name: str) -> None:
    """A machine that can come back can be replayed; only the replica goes round, once for each result."""
    table, seen = MACHINES[name], set()

    def walk(state: Enum, path: tuple[Enum, ...]) -> bool:
        seen.add(state)
        return state in path or any(walk(after, (*path, state)) for after in table[state] if after is not state)

    assert walk(next(iter(table)), ()) is (name == "replica")
    assert seen


def test_each_machine_ends_where_it_is_said_to_end() -> None:
    final = {name: {state.name for state, after in table.items() if not after} for name, table in MACHINES.items()}
    assert final == {
        "round": {"AGGREGATED", "ABORTED"},
        "submission": {"ACCEPTED", "REFUSED"},
        "ahead": {"TRAINED", "FAILED"},
        "duty": {"ATTESTED", "SILENT"},
        "epoch": {"ATTESTED", "SILENT"},
        "lead": {"CLOSED"},
        "payer": {"PAID", "FAILED"},
        "payee": {"SETTLED", "CANCELLED"},
        "share": {"PAID", "FAILED"},
        "opening": {"OPENED", "FAILED"},
        "withdrawal": {"SENT", "FAILED"},
        "replica": {"DIVERGED"},
        "suspicion": {"DISPUTED", "DROPPED"},
        "complaint": {"PROVEN", "REFUTED", "UNHEARD"},
    }


def test_the_states_page_is_current() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "gen-states"))
    assert (ROOT / "docs" / "states.md").read_text() == script["page"](), "run: scripts/gen-states"


def test_the_states_page_names_every_state_with_its_reason() -> None:
    page = (ROOT / "docs" / "states.md").read_text()
    for name, state in STATES:
        assert state.name in page, name
    for kind in {type(state) for _, state in STATES}:
        assert kind.__doc__ is not None
        assert kind.__doc__.split(".")[0] in page
    assert tables.__doc__ is not None
