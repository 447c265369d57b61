"""What a coordinator, one validator, the network or a restart could take from an epoch's pay, and do not (docs/adr/0032)."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import pytest

from nostrain.core.effects import OracleAttest
from nostrain.core.escrow.payee import locked
from nostrain.core.inputs import Boot
from nostrain.core.pruning import KEEP_ROUNDS, prune
from nostrain.core.rounds import epoch
from nostrain.core.rounds.scoring import PROVENANCE_ROUNDS, attested_levels
from nostrain.core.rows import EpochDuty, NodeState, Replica, Round, Row, Run
from nostrain.core.tables import EpochState
from nostrain.core.timing import CATCH_UP_S, collect_by, deadlines, epoch_ends, settled_by
from nostrain.core.transaction import Transaction
from nostrain.protocol import messages as m
from nostrain.units import EventId, Ppm, Pubkey, UnixTime
from tests.core.actors import EXAMPLES, HEIGHT, MESSAGES, Node, changed, say, until
from tests.core.epochs import ends, listener, manifest, thermometers
from tests.core.payees import held
from tests.docs.examples import COORDINATOR, VALIDATORS, WORKERS

OURS, UNSEEN = VALIDATORS[0], EventId("e" * 64)


def follows(node: Node, rounds: int, epoch_rounds: int) -> Node:
    """The node's run, as if its manifest had other numbers."""
    run = msgspec.structs.replace(node.run, manifest=manifest(rounds, epoch_rounds))
    node.state = NodeState({**node.state.rows, "run": run})
    return node


# --- one validator of three ----------------------------------------------------------------------------------------------


def scored(named: Mapping[int, tuple[int | None, ...]]) -> tuple[Run, Round, dict[Pubkey, Ppm]]:
    """The scores of a round in which those validators attested, each naming the verdicts of those (None: one that nobody else has)."""
    node = listener(until("attestation 2"))
    verdicts = {number: node.round.verdicts[party.pubkey][0] for number, party in enumerate(VALIDATORS)}
    attestations = {}
    for number, ids in named.items():
        said = MESSAGES[f"attestation {number}"]
        assert isinstance(said.body, m.Attestation)
        names = tuple(sorted(UNSEEN if one is None else verdicts[one] for one in ids))
        attestations[said.id] = (said.author, msgspec.structs.replace(said.body, verdicts=names))
    round_ = msgspec.structs.replace(node.round, attestations=attestations)
    return node.run, round_, epoch.scores_of(Transaction(node.state, node.now), node.run, round_)


@pytest.mark.parametrize(
    "named",
    [
        {0: (0, 1), 1: (0, 1, 2), 2: (0, 2)},
        {0: (0, 1), 1: (0, 1, 2)},
        {0: (0, 1, None), 1: (0, 1, 2)},
        {0: (0, 1), 1: (0, 1), 2: (None,)},
    ],
    ids=["three sets", "two sets, the third is silent", "a verdict in two versions", "one names what nobody has"],
)
def test_work_that_t_validators_attest_has_a_score_whatever_another_one_does(named: Mapping[int, tuple[int | None, ...]]) -> None:
    """What may be used is paid: a validator that splits what the others see could otherwise make every score of the round 0."""
    run, round_, scores = scored(named)
    used = {worker: level for worker, level in attested_levels(round_, run.manifest.threshold).items() if level}
    assert used
    assert all(scores[worker] >= run.manifest.scoring.levels_ppm[0] for worker in used)


def test_one_validator_does_not_raise_a_score() -> None:
    _, _, honest = scored({0: (0, 1, 2), 1: (0, 1, 2)})
    for third in ((0,), (1,), (2,), (None,)):
        assert scored({0: (0, 1, 2), 1: (0, 1, 2), 2: third})[2] == honest


def test_what_fewer_than_t_attest_scores_nothing() -> None:
    assert scored({0: (0, 1, 2)})[2] == {}


# --- a coordinator that is late, or contradicts itself -----------------------------------------------------------------------


@pytest.mark.parametrize(("late", "works"), [(0, True), (1, False)])
def test_nobody_works_in_a_round_that_ends_after_its_epoch(late: int, works: bool) -> None:
    """It would be attested, and used, after the epoch's pay is signed without it."""
    node = follows(held(HEIGHT + 2000), 8, 2)
    whole = collect_by(node.run, node.round) - node.round.announcement.deadlines.commit_by + node.run.manifest.timing.commit_s
    opened = epoch_ends(node.run, node.round) - whole + late
    said = msgspec.structs.replace(EXAMPLES.announcement, round=2, deadlines=deadlines(UnixTime(opened), node.run.manifest))
    assert locked(Transaction(node.state, UnixTime(opened)), node.run, Round(EventId("2" * 64), said)) is works


def attesting() -> Node:
    """A validator that announced its thermometers for an epoch, of which it has heard the first round."""
    node = listener(until("announcement"))
    node.identity = msgspec.structs.replace(node.identity, pubkey=OURS.pubkey, roles=("validator",))
    node.hear([say(OURS, thermometers(OURS, ends(node)), 45)])
    duty = EpochDuty(EXAMPLES.round_id, EpochState.ANNOUNCED)
    node.state = NodeState({**node.state.rows, "node": node.identity, f"epoch/{EXAMPLES.round_id}": duty})
    return node


def test_a_coordinator_that_contradicts_itself_pays_for_the_epoch_all_the_same() -> None:
    node = attesting().hear([changed("announcement", COORDINATOR, 51)])
    assert node.run.halted
    assert not node.past(ends(node) - 1).asks(OracleAttest)
    assert len(node.past(ends(node)).asked(OracleAttest).outcomes) == len(WORKERS)


# --- a restart -----------------------------------------------------------------------------------------------------------


def test_after_a_start_what_was_missed_is_heard_before_an_epoch_is_attested() -> None:
    node = attesting()
    node.now = UnixTime(ends(node) - 10)
    node.take(Boot(node.identity))
    assert not node.past(ends(node)).asks(OracleAttest)
    half = ends(node) + node.run.manifest.timing.attest_s // 2
    assert half < node.now + CATCH_UP_S
    assert not node.past(half - 1).asks(OracleAttest)
    assert node.past(half).asks(OracleAttest)
    assert node.now < settled_by(node.run, node.round)


def test_rounds_are_kept_as_long_as_the_scores_of_an_open_epoch_look_back() -> None:
    """With epochs as long as what is kept, the rounds before the first one would go before its scores are counted."""
    node = follows(attesting(), 100, KEEP_ROUNDS)
    first, last = KEEP_ROUNDS + 1, 2 * KEEP_ROUNDS
    ids = {number: EventId(f"{number:064x}") for number in range(1, last + 1)}
    said = {number: msgspec.structs.replace(EXAMPLES.announcement, round=number) for number in ids}
    rounds = {f"round/{ids[number]}": Round(ids[number], said[number]) for number in ids}
    others = {key: row for key, row in node.state.rows.items() if not key.startswith(("round/", "epoch/"))}
    duty = {f"epoch/{ids[first]}": EpochDuty(ids[first], EpochState.ANNOUNCED)}
    run: dict[str, Row] = {"run": msgspec.structs.replace(node.run, round=last), "replica": Replica(head=node.run.head, round=last)}
    tx = Transaction(NodeState({**others, **rounds, **duty, **run}), node.now)
    prune(tx)
    kept = {tx.need(key, Round).announcement.round for key in tx.keys("round/")}
    assert kept == set(range(first - PROVENANCE_ROUNDS + 1, last + 1))
