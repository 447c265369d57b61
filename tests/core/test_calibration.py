"""A worker says how fast it is when it enrols for the first time, and again when it computes on another machine."""

from __future__ import annotations

import msgspec
import pytest

from nostrain.core.effects import Compute, Computed, Failed
from nostrain.core.inputs import Boot
from nostrain.core.node import next_deadline
from nostrain.core.rows import WorkerMemory
from nostrain.core.timing import MEASURE_S
from nostrain.errors import IllegalTransition
from nostrain.protocol.jobs import CalibrateJob, CalibrateResult, InspectResult
from nostrain.protocol.limits import MAX_TOKENS_PER_S
from nostrain.protocol.messages import Enrolment
from nostrain.units import UnixTime
from tests.core.actors import EXAMPLES, Node, until
from tests.docs.examples import COORDINATOR, START, VALIDATORS, WORKERS

ME = WORKERS[0]


def booted(node: Node, machine: str) -> Node:
    """A start of the daemon on `machine`."""
    node.take(Boot(msgspec.structs.replace(node.identity, machine=machine)))
    return node


def newcomer(machine: str = "pytorch cpu") -> Node:
    """A worker that has heard of the run."""
    return booted(Node(ME, "worker"), machine).hear(until("manifest"))


def speeds(node: Node) -> list[int]:
    """What it says of its speed now."""
    return [message.body.tokens_per_s for message in node.speak() if isinstance(message.body, Enrolment)]


def test_a_newcomer_is_measured_before_it_enrols() -> None:
    node = newcomer()
    assert speeds(node) == []
    effect = node.asked(Compute, "calibrate")
    assert effect.job == CalibrateJob(EXAMPLES.manifest.model, EXAMPLES.manifest.training)
    node.ends(effect, Computed(CalibrateResult(tokens=6_000, train_ms=1_500)))
    assert node.told("calibrations") == ["this machine trains 4,000 tokens a second"]
    assert speeds(node) == [4_000]
    assert node.run.enrolled[ME.pubkey][2].tokens_per_s == 4_000
    assert not [effect for effect in node.at(9).asks(Compute) if effect.name == "calibrate"]


def test_a_slow_measurement_is_not_waited_for_and_said_later() -> None:
    node = newcomer()
    assert speeds(node.at(MEASURE_S)) == []
    assert next_deadline(node.state, UnixTime(START)) == START + MEASURE_S + 1
    assert speeds(node.at(MEASURE_S + 1)) == [0]
    node.at(60)
    node.ends(node.asked(Compute, "calibrate"), Computed(CalibrateResult(tokens=6_000, train_ms=1_500)))
    assert speeds(node) == [4_000]
    assert speeds(node.at(200)) == []


def test_a_restart_does_not_begin_to_wait_again() -> None:
    node = newcomer()
    node.now = UnixTime(START + 100)
    assert speeds(booted(node, "pytorch cpu")) == [0]


def test_a_clock_that_was_ahead_and_is_put_right_keeps_nobody_waiting_for_its_time() -> None:
    node = booted(Node(ME, "worker"), "pytorch cpu")
    node.now = UnixTime(START + 1_000_000)
    assert speeds(node.hear(until("manifest"))) == []
    assert speeds(node.at(100)) == []
    assert speeds(node.at(100 + MEASURE_S + 1)) == [0]


@pytest.mark.parametrize(("tokens", "train_ms", "said"), [(7, 0, 7_000), (0, 5, 0), (1 << 60, 1, MAX_TOKENS_PER_S)])
def test_what_it_says_can_be_said(tokens: int, train_ms: int, said: int) -> None:
    node = newcomer()
    node.ends(node.asked(Compute, "calibrate"), Computed(CalibrateResult(tokens, train_ms)))
    assert speeds(node) == [said]


def test_one_that_cannot_be_measured_enrols_all_the_same() -> None:
    node = newcomer()
    node.ends(node.asked(Compute, "calibrate"), Failed("the engine refuses the job: a loss is not finite"))
    assert speeds(node) == [0]
    assert "a loss is not finite" in node.told("calibrations_failed")[0]
    assert not [effect for effect in node.at(9).asks(Compute) if effect.name == "calibrate"]


def test_a_restart_measures_again_on_another_machine_alone() -> None:
    node = newcomer()
    node.ends(node.asked(Compute, "calibrate"), Computed(CalibrateResult(4_000, 1_000)))
    node.speak()
    booted(node, "pytorch cpu").at(10)
    assert not [effect for effect in node.asks(Compute) if effect.name == "calibrate"]
    booted(node, "pytorch cuda").at(11)
    node.ends(node.asked(Compute, "calibrate"), Computed(CalibrateResult(400_000, 1_000)))
    assert speeds(node.at(12)) == [400_000]
    memory = node.row("worker", WorkerMemory)
    assert (memory.machine, memory.tokens_per_s, memory.state_path) == ("pytorch cuda", 400_000, None)


def test_nobody_else_is_measured_and_nobody_without_a_run() -> None:
    assert booted(Node(ME, "worker"), "pytorch cpu").at(5).asks(Compute) == []
    for party, role in ((VALIDATORS[0], "validator"), (COORDINATOR, "coordinator")):
        node = booted(Node(party, role), "pytorch cpu").hear(until("manifest"))  # type: ignore[arg-type]
        assert not [effect for effect in node.asks(Compute) if effect.name == "calibrate"]


def test_another_job_s_result_is_a_mistake_of_ours() -> None:
    node = newcomer()
    with pytest.raises(IllegalTransition, match="calibration ended with Computed"):
        node.ends(node.asked(Compute, "calibrate"), Computed(InspectResult(None)))
