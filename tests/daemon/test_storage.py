"""Every kind of row and input survives the journal; what cannot be read is a clear ConfigError."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import trio
from trio.testing import MockClock

from nostrain.core.effects import RETRY, Effect, Outcome
from nostrain.core.identity import Identity
from nostrain.core.inputs import Boot, Done, Input
from nostrain.core.rows import Chain, NodeState, Outbox, Outstanding, Row
from nostrain.daemon.storage import Logged, batch_of, load_state
from nostrain.errors import ConfigError
from nostrain.protocol.messages import Body
from nostrain.testing.journal import MemoryJournal
from nostrain.testing.simulation import Plan, Simulation
from nostrain.units import BlockHeight, Pubkey, UnixTime
from tests.daemon.examples import example, members


@pytest.mark.parametrize("kind", members(Row), ids=lambda kind: kind.__name__)
def test_every_kind_of_row_comes_back(kind: type[msgspec.Struct]) -> None:
    row = example(kind)
    journal = MemoryJournal()
    journal.commit(batch_of([], NodeState(), NodeState({"some/key": row})))
    assert load_state(journal.load()).rows == {"some/key": row}


@pytest.mark.parametrize("kind", members(Effect), ids=lambda kind: kind.__name__)
def test_every_kind_of_effect_comes_back(kind: type[msgspec.Struct]) -> None:
    """They are listed in the state: a restart must run the same ones. Each says what a restart may do with it."""
    row = Outstanding(example(kind))
    journal = MemoryJournal()
    journal.commit(batch_of([], NodeState(), NodeState({"effect/x": row})))
    assert load_state(journal.load()).rows == {"effect/x": row}
    assert kind in RETRY


@pytest.mark.parametrize("kind", members(Body), ids=lambda kind: kind.__name__)
def test_every_body_that_waits_to_be_signed_comes_back(kind: type[msgspec.Struct]) -> None:
    row = Outbox(created_at=UnixTime(5), body=example(kind))
    journal = MemoryJournal()
    journal.commit(batch_of([], NodeState(), NodeState({"outbox/x": row})))
    assert load_state(journal.load()).rows == {"outbox/x": row}


@pytest.mark.parametrize("kind", members(Input) + members(Outcome), ids=lambda kind: kind.__name__)
def test_every_kind_of_input_is_in_the_audit_log_as_it_was(kind: type[msgspec.Struct]) -> None:
    input_ = example(kind) if kind in members(Input) else Done("toy#a", example(kind))
    logged = Logged(UnixTime(9), input_)
    batch = batch_of([logged], NodeState(), NodeState())
    assert [msgspec.json.decode(line, type=Logged) for line in batch.inputs] == [logged]


def test_a_commit_writes_what_changed_and_nothing_else() -> None:
    kept, changed, gone = Chain(BlockHeight(1)), Chain(BlockHeight(2)), Chain(BlockHeight(3))
    before = NodeState({"kept": kept, "changed": changed, "gone": gone})
    after = NodeState({"kept": kept, "changed": Chain(BlockHeight(4)), "new": gone})
    batch = batch_of([], before, after)
    assert set(batch.rows) == {"changed", "gone", "new"}
    assert batch.rows["gone"] is None


@pytest.mark.parametrize(
    "data", [b"", b"{", b'{"type":"from-the-future"}', b'{"type":"chain","height":"high"}', b"[" * 5000, b"\xff\xfe", b"null"]
)
def test_a_row_that_cannot_be_read_names_itself(data: bytes) -> None:
    with pytest.raises(ConfigError) as caught:
        load_state({"height": b'{"type":"chain","height":1}', "run": data})
    assert caught.value.value == "run"
    assert "cannot read the row" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_rows_are_plain_json_for_people() -> None:
    batch = batch_of([], NodeState(), NodeState({"height": Chain(BlockHeight(800_000))}))
    assert batch.rows["height"] == b'{"type":"chain","height":800000}'


async def test_the_states_of_a_whole_run_come_back(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Every row that a paid round leaves behind, not only examples; and the audit log holds what led there."""
    async with trio.open_nursery() as nursery:
        simulation = Simulation(Plan(rounds=1, workers=2, validators=3), tmp_path)
        await nursery.start(lambda task_status=trio.TASK_STATUS_IGNORED: hold(simulation, task_status))
        await simulation.until(
            lambda: all(one.run is not None and one.run.finished for one in simulation.participants.values()), limit_s=3600
        )
        for participant in simulation.participants.values():
            assert participant.runtime is not None
            journal = participant.runtime.ports.journal
            assert load_state(journal.load()) == participant.runtime.state
            inputs = [msgspec.json.decode(line, type=Logged).input for _, line in journal.inputs()]
            assert isinstance(inputs[0], Boot)
            assert len(inputs) > 20
        nursery.cancel_scope.cancel()


async def hold(simulation: Simulation, task_status: trio.TaskStatus[None]) -> None:
    async with simulation.running():
        task_status.started()
        await trio.sleep_forever()


def test_the_identity_of_the_examples_is_what_it_says() -> None:
    row = example(Identity)
    assert row.pubkey == Pubkey("ab" * 32)
    assert row.plan.timing.commit_s == 7
