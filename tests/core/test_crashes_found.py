"""What hostile or merely unlucky parties once stopped a node with, again after every restart: the node outlives each.

The nodes here are whole; only what lies outside of them is answered by hand: blobs, engine, oracle, relays.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import msgspec
import pytest

from nostrain.core import coordinator
from nostrain.core.effects import (
    Computed,
    Failed,
    Sign,
)
from nostrain.core.inputs import Received, Tick
from nostrain.core.node import outstanding
from nostrain.core.rows import Duty, Lead, Round
from nostrain.core.tables import DutyState, LeadState, ReplicaState
from nostrain.core.timing import deadlines
from nostrain.core.transaction import Transaction
from nostrain.crypto import schnorr
from nostrain.crypto.chain import chain_link
from nostrain.crypto.oracle import endorsement_message
from nostrain.errors import LocalProtocolError
from nostrain.hashes import sha256_hex
from nostrain.learning.score import MOST, nanonats
from nostrain.protocol import messages as m
from nostrain.protocol.digests import endorsed_text, initial_state_id
from nostrain.protocol.jobs import ValidationResult
from nostrain.protocol.limits import MAX_BLOB_BYTES, MAX_LEVELS, MAX_WORKERS
from nostrain.protocol.manifest import BlobRef
from nostrain.units import Digest, EventId, Pubkey, UnixTime
from nostrain.wire.messages import draft, read_message_untrusted
from tests.core.actors import EXAMPLES
from tests.core.answered import LATER, OTHER_STATE, SHARDS, Node, Role
from tests.docs.examples import COORDINATOR, START, VALIDATORS, WORKERS, Party

MESSAGES = {label: read_message_untrusted(event) for label, event in EXAMPLES.events.items()}
UNREADABLE = Failed("a dataset manifest of 5000000 bytes, at most 4194304 are read")
SHORT = Failed("blob abababab has 10 bytes, 9000 were promised")


def heard(*labels: str) -> list[m.Message]:
    return [MESSAGES[label] for label in labels]


ROUND = [message for label, message in MESSAGES.items() if label != "manifest"]
"""What is said after the manifest, whoever says it."""
BEFORE_REVEALS = ROUND[: ROUND.index(MESSAGES["reveal 0"])]


def by_others(party: Party, messages: Iterable[m.Message]) -> list[m.Message]:
    return [message for message in messages if message.author != party.pubkey]


def replica_effects(node: Node) -> list[str]:
    return [effect.name for effect in outstanding(node.state) if effect.owner == "replica"]


# --- a hostile run: its dataset manifest, its checkpoint -----------------------------------------------------------------


@pytest.mark.parametrize("last", ["dataset", "inspect"])
def test_a_dataset_that_cannot_be_read_ends_the_following_and_nothing_else(last: str) -> None:
    node = Node(Party("newcomer"), answers={"dataset": UNREADABLE})
    node.take(Received(MESSAGES["manifest"]))
    node.work(without=last)
    node.work()
    assert node.replica.state is ReplicaState.DIVERGED
    assert (node.counted("states_diverged"), node.said) == (1, [])
    node.hear(ROUND)
    assert (node.run.round, node.run.halted) == (1, None)


@pytest.mark.parametrize("name", ["validation", "validation:"], ids=["fetched", "measured"])
def test_a_validation_shard_that_is_not_as_promised_leaves_only_the_loss_out(name: str) -> None:
    node = Node(VALIDATORS[0], "validator", answers={name: SHORT}).hear(heard("manifest"))
    assert [body.validation_nanonats for body in node.bodies(m.Confirmation)] == [None]
    assert (node.counted("validations_failed"), node.replica.state) == (1, ReplicaState.READY)


def test_a_shard_that_is_not_as_promised_silences_a_validator_for_the_round() -> None:
    me = VALIDATORS[0]
    node = Node(me, "validator", now=START + 1, answers={"shard:": SHORT}).hear(heard("manifest"))
    node.now = START + 47
    node.hear(by_others(me, [*BEFORE_REVEALS, *heard("reveal 0", "reveal 1", "reveal 2")]))
    duty = node.state.rows[f"duty/{EXAMPLES.round_id}"]
    assert isinstance(duty, Duty)
    assert duty.state is DutyState.SILENT
    assert len(node.bodies(m.Acknowledgement)) == 1
    assert node.bodies(m.VerdictHash) == []
    assert node.replica.state is ReplicaState.READY


@pytest.mark.parametrize("loss", [math.inf, -math.inf, math.nan, 1e300, 5e9])
def test_any_loss_that_a_checkpoint_can_cause_can_be_said(loss: float) -> None:
    told = nanonats(loss)
    assert abs(told) == MOST
    node = Node(VALIDATORS[0], "validator", answers={"validation:": Computed(ValidationResult(told, 16_384))}).hear(heard("manifest"))
    assert [body.validation_nanonats for body in node.bodies(m.Confirmation)] == [told]


@pytest.mark.parametrize(("loss", "told"), [(0.0, 0), (5.5021134567, 5_502_113_457), (-2e-9, -2), (999_999.0, 999_999 * 10**9)])
def test_losses_of_honest_checkpoints_are_told_as_they_are(loss: float, told: int) -> None:
    assert nanonats(loss) == told


# --- a replica that cannot follow ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("roles", [(), ("validator",)], ids=["without a role", "validator"])
def test_a_replica_that_computed_another_state_says_so_once_and_asks_for_nothing_more(roles: tuple[Role, ...]) -> None:
    node = Node(VALIDATORS[1], *roles).hear([MESSAGES["manifest"], *ROUND])
    assert node.replica.state is ReplicaState.DIVERGED
    assert node.bodies(m.Confirmation)[-1].state_id == OTHER_STATE.state_id
    assert node.counted("states_diverged") == 1
    said = list(node.said)
    for node.now in (LATER + 100, LATER + 10_000):
        node.take(Tick())
        assert outstanding(node.state) == ()
    assert node.said == said


def test_what_a_diverged_replica_still_had_asked_for_changes_nothing_any_more() -> None:
    node = Node(Party("newcomer"), answers={"dataset": UNREADABLE})
    node.take(Received(MESSAGES["manifest"]))
    node.work(without="checkpoint")
    assert node.replica.state is ReplicaState.DIVERGED
    diverged = node.replica
    node.work()
    node.take(Tick())
    assert (node.replica, replica_effects(node)) == (diverged, [])


# --- a validator that attests again and again ----------------------------------------------------------------------------


def flooded(node: Node) -> Round:
    """The round, in which each validator has signed 64 attestation events."""
    attestations = {
        EventId(sha256_hex(b"%d %d" % (n, copy))): (party.pubkey, MESSAGES[f"attestation {n}"].body)
        for n, party in enumerate(VALIDATORS)
        for copy in range(64)
    }
    assert len(attestations) == 192
    return msgspec.structs.replace(node.round, attestations=attestations)


def largest_result(cited: tuple[EventId, ...]) -> m.Result:
    accepted = tuple(
        m.Accepted(Pubkey(f"{n:064x}"), BlobRef(SHARDS[0].sha256, MAX_BLOB_BYTES), 65_536, MAX_LEVELS) for n in range(MAX_WORKERS)
    )
    body = MESSAGES["result"].body
    assert isinstance(body, m.Result)
    return msgspec.structs.replace(body, attestations=cited, accepted=accepted, refused=())


def test_a_result_cites_one_attestation_of_each_validator_and_fits() -> None:
    round_ = flooded(Node(Party("newcomer")).hear(heard("manifest", "announcement")))
    cited = coordinator.cited(round_)
    assert sorted(round_.attestations[event_id][0] for event_id in cited) == [party.pubkey for party in VALIDATORS]
    assert cited == tuple(sorted(cited))
    assert draft(largest_result(cited), START).kind == EXAMPLES.events["result"].kind
    with pytest.raises(LocalProtocolError, match="too large"):
        draft(largest_result(tuple(sorted(round_.attestations))), START)


def test_a_coordinator_closes_a_flooded_round_with_the_same_levels() -> None:
    node = Node(COORDINATOR).hear([MESSAGES["manifest"], *BEFORE_REVEALS, *heard("reveal 0", "reveal 1", "reveal 2")])
    tx = Transaction(node.state, LATER)
    lead = Lead(announcement=EXAMPLES.round_id, state=LeadState.RECEIPTED)
    coordinator.collect(tx, node.run, flooded(node), lead)
    closing = tx.need(f"lead/{EXAMPLES.round_id}", Lead)
    result = MESSAGES["result"].body
    assert isinstance(result, m.Result)
    assert closing.state is LeadState.AGGREGATING
    assert closing.levels == {item.worker: item.level for item in result.accepted}


# --- bad luck: away for long, or with an empty folder --------------------------------------------------------------------


def empty_rounds(count: int) -> list[m.Message]:
    """The manifest of a longer run, and `count` rounds of it that used no work."""
    manifest = msgspec.structs.replace(EXAMPLES.manifest, rounds=1_000)
    told = [read_message_untrusted(COORDINATOR.says(manifest, START))]
    run, state = told[0].id, initial_state_id(manifest.root)
    workers = EXAMPLES.announcement.workers
    validators = tuple(long_entry(party, run, manifest.rounds) for party in VALIDATORS)
    for number in range(1, count + 1):
        when = UnixTime(START + 5 + number)
        opened = m.Announcement(run, number, told[-1].id, state, workers, validators, deadlines(when, manifest))
        told.append(read_message_untrusted(COORDINATOR.says(opened, when)))
        closed = m.Result(run, told[-1].id, number, (), (), (), 0, state, manifest.root, manifest.checkpoint)
        told.append(read_message_untrusted(COORDINATOR.says(closed, when)))
    return told


def long_entry(party: Party, run: EventId, rounds: int) -> m.ValidatorEntry:
    """The validator as it is listed in a run of so many rounds: with a chain as long."""
    end = Digest(chain_link(party.root.chain_seed(run, rounds), rounds, 0).hex())
    endorsement = schnorr.sign(party.root.oracle_key(), endorsement_message(party.pubkey, endorsed_text(run, end, rounds)))
    return m.ValidatorEntry(party.pubkey, party.oracle, endorsement.hex(), end, rounds)


@pytest.mark.parametrize("party", [Party("newcomer"), WORKERS[0]], ids=["onlooker", "listed worker"])
def test_a_long_streak_of_empty_rounds_is_caught_up_at_once(party: Party) -> None:
    manifest, *history = empty_rounds(70)
    node = Node(party).hear([manifest, *reversed(history)])
    assert (node.run.round, node.replica.round, node.replica.state) == (70, 70, ReplicaState.READY)


def test_a_coordinator_in_an_empty_folder_waits_for_its_own_state() -> None:
    node = Node(COORDINATOR, "coordinator", now=START + 10)
    node.take(Received(MESSAGES["manifest"]))
    node.take(Received(MESSAGES["announcement"]))
    node.now = LATER
    node.take(Tick())
    assert not any(isinstance(effect, Sign) for effect in outstanding(node.state))
    node.work()
    assert [body.accepted for body in node.bodies(m.Result)] == [()]
    assert (node.run.round, node.replica.round) == (1, 1)


def test_a_worker_s_key_without_the_role_stays_out_when_a_round_leaves_it_out() -> None:
    node = Node(WORKERS[0], now=START + 10).hear(heard("manifest", "enrolment worker 0"))
    others = msgspec.structs.replace(EXAMPLES.announcement, workers=EXAMPLES.announcement.workers[1:])
    node.hear([read_message_untrusted(COORDINATOR.says(others, START + 5))])
    assert node.run.open is not None
    assert (node.bodies(m.Enrolment), node.replica.state) == ([], ReplicaState.READY)
