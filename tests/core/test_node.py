"""The router: one input steps every machine; duplicates, errors and hostile numbers change nothing; policies come to rest; restarts resume."""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nostrain.core import node as router
from nostrain.core import outbox
from nostrain.core.effects import RETRY, Cancel, Effect, EffectBase, Ok
from nostrain.core.groups import grouped
from nostrain.core.identity import Identity
from nostrain.core.inputs import Block, Boot, Done, HoldChanged, Received, Tick
from nostrain.core.node import next_deadline, step
from nostrain.core.rows import Chain, NodeState, Round, Started
from nostrain.core.timing import CATCH_UP_S
from nostrain.core.transaction import Transaction, changes
from nostrain.core.treasury.liquidity_rows import LightningNode
from nostrain.daemon.storage import batch_of, load_state
from nostrain.errors import LocalProtocolError
from nostrain.protocol.messages import Dispute, EpochAttestation, Message, PublicBody
from nostrain.units import BlockHeight, Digest, EventId, Msat, Pubkey, UnixTime
from tests.core.actors import EXAMPLES, LABELS, LIMITS, MESSAGES, ROUND, Node, changed, until
from tests.docs.examples import COORDINATOR, START, VALIDATORS, WORKERS, Party

PARTIES = [COORDINATOR, *WORKERS, *VALIDATORS]
ROLES: list[tuple[Party, Any]] = [(COORDINATOR, "coordinator"), (WORKERS[0], "worker"), (VALIDATORS[0], "validator")]


def without_start(state: NodeState) -> dict[str, object]:
    return {key: row for key, row in state.rows.items() if not isinstance(row, Started | LightningNode)}


# --- properties of a step ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("party", "role"), ROLES)
def test_a_step_is_a_function_of_its_arguments(party: Party, role: Any) -> None:
    one, two = Node(party, role), Node(party, role)
    for message in ROUND:
        first, second = one.take(Received(message)), two.take(Received(message))
        assert first == second
        assert list(first.state.rows) == list(second.state.rows)


@pytest.mark.parametrize(("party", "role"), ROLES)
def test_hearing_a_thing_twice_is_hearing_it_once(party: Party, role: Any) -> None:
    node = Node(party, role)
    for message in ROUND:
        node.take(Received(message))
        before = node.state.rows
        again = node.take(Received(message))
        assert again.state.rows == before
        assert again.effects == ()


def test_other_inputs_twice_are_inputs_once() -> None:
    node = Node(WORKERS[0], "worker").hear(ROUND[:8])
    for input_ in (Boot(node.identity), Block(BlockHeight(5)), Tick(), HoldChanged(Digest("0" * 64), "accepted", Msat(1), BlockHeight(9))):
        node.take(input_)
        before = node.state.rows
        again = node.take(input_)
        assert (again.state.rows, again.effects) == (before, ())


def test_the_outcome_of_an_effect_that_is_not_outstanding_is_nothing() -> None:
    node = Node(WORKERS[0], "worker").hear(until("announcement"))
    before = node.state.rows
    assert node.take(Done("work/none#train", Ok())).state.rows == before


def test_an_error_leaves_the_state_as_it_was() -> None:
    node = Node(WORKERS[0], "worker").hear(until("announcement")).ready()
    node.at(10)
    before, effect = node.state, router.outstanding(node.state)[0]
    rows = dict(before.rows)
    with pytest.raises(LocalProtocolError):
        step(before, Done(effect.id, Ok()), node.now)
    assert dict(before.rows) == rows


def test_a_journal_belongs_to_one_key() -> None:
    node = Node(WORKERS[0], "worker")
    with pytest.raises(LocalProtocolError, match="the journal belongs to"):
        node.take(Boot(msgspec.structs.replace(node.identity, pubkey=WORKERS[1].pubkey)))


def test_a_step_says_which_effects_are_new() -> None:
    node = Node(WORKERS[0], "worker")
    known: set[str] = set()
    for message in ROUND[:9]:
        taken = node.take(Received(message))
        listed = {effect.id for effect in router.outstanding(taken.state)}
        assert {effect.id for effect in taken.effects} == listed - known
        known = listed


def test_every_effect_says_how_it_may_be_retried() -> None:
    assert set(RETRY) == set(get_args(Effect)) == set(EffectBase.__subclasses__())


def test_policies_that_do_not_rest_are_a_bug_and_not_a_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    def restless(tx: Transaction) -> None:
        tx.put("height", Chain(BlockHeight(tx.version)))

    node = Node(WORKERS[0], "worker")
    monkeypatch.setattr(outbox, "decide", restless)
    with pytest.raises(LocalProtocolError, match="do not come to rest"):
        node.take(Tick())


# --- rows ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("party", "role"), ROLES)
def test_the_index_of_keys_is_that_of_the_rows(party: Party, role: Any) -> None:
    node = Node(party, role)
    for message in ROUND:
        node.take(Received(message))
        assert node.state.groups == grouped(node.state.rows)
        assert NodeState(node.state.rows).groups == node.state.groups


@given(st.lists(st.tuples(st.sampled_from(["a/1", "a/2", "ab", "a", "b/1"]), st.booleans()), max_size=12))
def test_a_transaction_shows_what_it_wrote(writes: list[tuple[str, bool]]) -> None:
    before = NodeState({"a/1": Started(UnixTime(0)), "b/1": Started(UnixTime(0))})
    tx, expected = Transaction(before, UnixTime(1)), dict(before.rows)
    for number, (key, keep) in enumerate(writes, start=1):
        if keep:
            tx.put(key, Started(UnixTime(number)))
            expected[key] = Started(UnixTime(number))
        else:
            tx.delete(key)
            expected.pop(key, None)
    after = tx.result()
    assert after.rows == expected
    assert after.groups == grouped(expected)
    for prefix in ("a", "a/", "ab", "b/", "a/1"):
        group = prefix.partition("/")[0]
        assert tx.keys(prefix) == sorted(key for key in expected if key.startswith(prefix) and key.partition("/")[0] == group)
    written = changes(before, after)
    assert {**before.rows, **{k: v for k, v in written.items() if v}} == {
        **expected,
        **{k: before.rows[k] for k, v in written.items() if v is None},
    }


# --- time ----------------------------------------------------------------------------------------------------------------


def test_every_deadline_of_the_round_rings_just_after_it() -> None:
    state = Node(Party("listener")).hear(until("announcement")).state
    after, moments = UnixTime(START), []
    while (moment := next_deadline(state, after)) is not None:
        moments.append(moment)
        after = moment
    assert moments == sorted(set(moments))
    assert {deadline + 1 for deadline in msgspec.structs.astuple(LIMITS)} <= set(moments)
    assert START + CATCH_UP_S + 1 in moments


def test_a_commitment_dated_ahead_rings_when_its_time_comes() -> None:
    """Then a receipt that pins everybody is due, and no deadline of the round is."""
    ahead = changed("commitment 0", WORKERS[0], 77)
    state = Node(Party("listener")).hear([*until("announcement"), ahead]).state
    assert next_deadline(state, UnixTime(START + 76)) == START + 77


def test_taking_back_one_effect_leaves_those_of_a_longer_name() -> None:
    tx = Transaction(NodeState(), UnixTime(0))
    names = ("unlock:1", "unlock:10", "unlock:11")
    for name in names:
        tx.emit(Cancel("payee/1", name, Digest("0" * 64)))
    tx.emit(Cancel("payee/12", "unlock:1", Digest("0" * 64)))
    tx.withdraw("payee/1", "unlock:1")
    assert set(tx.keys("effect/")) == {"effect/payee/12#unlock:1", "effect/payee/1#unlock:10", "effect/payee/1#unlock:11"}
    tx.withdraw("payee/1")
    assert tx.keys("effect/") == ["effect/payee/12#unlock:1"]


def test_nothing_rings_before_there_is_anything() -> None:
    assert next_deadline(NodeState(), UnixTime(0)) is None


@pytest.mark.parametrize(("party", "role"), ROLES)
def test_time_alone_ends_everything_that_was_begun(party: Party, role: Any) -> None:
    """Whoever hears the opening of a round and then nothing more comes to an end with it, and wants nothing but to send."""
    for count in range(8, len(ROUND)):
        node = Node(party, role).hear(ROUND[:count]).ready()
        node.speak()
        after = node.now
        while (moment := next_deadline(node.state, after)) is not None:
            node.now = after = moment
            node.take(Tick())
            node.speak()
        open_ = [key for key in node.state.rows if key.startswith(("effect/work", "effect/duty", "effect/payer", "effect/payee"))]
        assert not open_, (count, open_)


# --- hostile contents ----------------------------------------------------------------------------------------------------

NUMBERS = st.sampled_from([-(1 << 62), -1, 0, 1, 2, 99, 1 << 40, (1 << 62) - 1])
HEX = st.sampled_from(["0" * 64, "f" * 64, EXAMPLES.round_id, EXAMPLES.run, MESSAGES["receipt"].id, MESSAGES["commitment 0"].id])


def mutated(draw: Callable[[st.SearchStrategy[Any]], Any], value: Any) -> Any:
    """`value` with a few of its parts replaced by others of their type."""
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return draw(st.just(value) | NUMBERS)
    if isinstance(value, str):
        return draw(st.just(value) | HEX) if len(value) == 64 else draw(st.just(value) | st.sampled_from(["", "x", "worker", "validator"]))
    if isinstance(value, tuple):
        kept = tuple(mutated(draw, item) for item in value)
        return draw(st.sampled_from([kept, kept[:-1], kept[::-1], kept + kept[:1], ()]))
    if isinstance(value, msgspec.Struct):
        name = draw(st.sampled_from(value.__struct_fields__))
        return msgspec.structs.replace(value, **{name: mutated(draw, getattr(value, name))})
    return value


@st.composite
def hostile(draw: Callable[[st.SearchStrategy[Any]], Any]) -> Message:
    """A message that someone who takes part might sign: an honest one with a part replaced. Types hold, as the wire sees to that."""
    label = draw(st.sampled_from([*LABELS, *EXAMPLES.private]))
    message = MESSAGES[label]
    body = message.body
    for _ in range(draw(st.integers(1, 3))):
        body = mutated(draw, body)
    author = draw(st.sampled_from([message.author, *(party.pubkey for party in PARTIES), Pubkey("e" * 64)]))
    created_at = draw(st.sampled_from([0, START, message.created_at, LIMITS.attest_by, 1 << 39]))
    return Message(EventId(draw(st.sampled_from(["a", "b", "c"])) * 64), author, UnixTime(created_at), body)


@given(st.data(), st.sampled_from(ROLES), st.integers(0, len(ROUND)), st.lists(hostile(), min_size=1, max_size=4))
@settings(max_examples=600, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_no_message_breaks_a_node(data: st.DataObject, who: tuple[Party, Any], heard: int, messages: list[Message]) -> None:
    """Whatever is signed, by whomever, at whatever time: a refusal or a waiting row, never an exception; and policies come to rest."""
    node = Node(*who).hear(ROUND[:heard])
    if heard > 8 and data.draw(st.booleans()):
        node.ready()
        node.speak()
    for message in messages:
        node.now = UnixTime(START + data.draw(st.sampled_from([0, 50, 100, 200, 400])))
        node.take(Received(message))
        assert node.state.groups == grouped(node.state.rows)
    node.hear(ROUND[heard:])


def test_a_result_of_any_shape_is_void_or_waits_but_never_crashes() -> None:
    body = MESSAGES["result"].body
    for field in typing.cast("Any", body).__struct_fields__:
        for value in (-1, 0, 1 << 61, (), EXAMPLES.run):
            if isinstance(value, type(getattr(body, field))):
                bad = Message(EventId("9" * 64), COORDINATOR.pubkey, START, msgspec.structs.replace(body, **{field: value}))
                node = Node(Party("listener")).hear([*until("attestation 2"), bad])
                assert node.run.round in (0, 1)


def test_every_public_body_is_routed() -> None:
    """(Epochs of several rounds have tests of their own: the example's run has none.)"""
    assert {type(message.body) for message in ROUND} | {Dispute, EpochAttestation} == set(get_args(PublicBody))


# --- restarts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("party", "role"), ROLES)
def test_a_restart_resumes_what_was_outstanding_and_asks_for_nothing_twice(party: Party, role: Any) -> None:
    for count in range(1, len(ROUND)):
        node = Node(party, role).hear(ROUND[:count])
        outstanding = {effect.id for effect in router.outstanding(node.state)}
        rows = without_start(node.state)
        again = node.take(Boot(node.identity))
        assert without_start(again.state) == rows
        assert {effect.id for effect in router.outstanding(again.state)} == outstanding
        assert again.effects == ()


def test_state_survives_the_journal() -> None:
    for party, role in ROLES:
        node = Node(party, role).hear(ROUND[:20])
        written = batch_of([], NodeState(), node.state).rows
        loaded = load_state({key: data for key, data in written.items() if data is not None})
        assert loaded.rows == node.state.rows
        assert loaded.groups == node.state.groups


def test_identity_may_change_but_for_the_key() -> None:
    node = Node(WORKERS[0], "worker")
    other = Identity(pubkey=WORKERS[0].pubkey, name="renamed", roles=("worker",), work_dir="/elsewhere")
    node.take(Boot(other))
    assert node.row("node", Identity) == other
    assert not [row for row in node.state.rows.values() if isinstance(row, Round)]
