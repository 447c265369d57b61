"""Cheaters among honest participants: money is conserved, cheats earn no more than their fees, the honest hardly notice.

The clauses of "must hold", one test each: honest workers keep 90 % of what they earn without cheaters, in runs of 1 to 8 rounds, and each cheater
earns at most its fees; a bad payer is refused before work in 7 of 8 tries, and leaves a proof otherwise; with one silent validator of three all
are paid; with two nobody's work is used, and all money returns.

What a delta is worth is the learning engine's business (`tests/learning`): here a delta that nobody trained is worth nothing, and one that was
seen before overlaps with itself. Deltas that resemble another of the same round without being it are refused from round
`plausibility_from_round` on; before it, only what shares more than `SAME_PPM` of its indices.
"""

from __future__ import annotations

import dataclasses
import os
import random
from collections import Counter
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest
import trio

from nostrain.audit.proof import Proof, check_proof, find_proofs
from nostrain.core.effects import Effect, Outcome, Send
from nostrain.core.escrow.rows import Payee
from nostrain.core.rows import Round, Submission
from nostrain.daemon.ports import Ports
from nostrain.daemon.runners import Perform, perform
from nostrain.devnet import cheaters
from nostrain.devnet.cheaters import BadPayer, Cheat, SilentValidator
from nostrain.protocol.jobs import TrainJob
from nostrain.protocol.manifest import ScoringSpec
from nostrain.protocol.messages import Commitment, Result, Reveal
from nostrain.testing.engine import Delta
from nostrain.testing.lightning import Move
from nostrain.testing.simulation import Plan, Simulation
from nostrain.units import Msat, Ppm
from tests.sim.world import check_nothing_broke, check_oracles, check_states, rows_of, simulate, to_the_end

FEE, LEVEL = Msat(500_000), Msat(10_000_000)
EVERY_LENGTH = bool(os.environ.get("NOSTRAIN_SIM_ALL"))
HONEST = ("worker-0", "worker-1", "worker-2")
CHEATS: Mapping[str, Cheat] = {
    "worker-3": "noise",
    "worker-4": "copy-digest",
    "worker-5": "copy-previous",
    "worker-6": "twin",
    "worker-7": "twin",
    "worker-8": "no-reveal",
}


def untrained(job: TrainJob, seed: bytes) -> bytes:
    """A delta of the stub engine's that no seed of ours gave."""
    checkpoint = sha256(Path(job.checkpoint).read_bytes()).hexdigest()
    return msgspec.json.encode(Delta(checkpoint=checkpoint, seed=seed.hex(), value=seed.hex()))


def runners(cheats: Mapping[str, Cheat], shared: Path) -> dict[str, Perform]:
    return {name: cheaters.runner(cheat, untrained, shared) for name, cheat in cheats.items()}


def gained(sim: Simulation) -> dict[str, int]:
    """What each worker has more than at the start."""
    start = FEE * sim.plan.rounds
    return {name: sim.ledger.balances[name] - start for name, one in sim.participants.items() if one.role == "worker"}


def reasons(sim: Simulation) -> dict[str, set[str]]:
    """Why each worker's work was not used."""
    names = {one.pubkey: name for name, one in sim.participants.items()}
    told: dict[str, set[str]] = {}
    for message in sim.said(Result):
        assert isinstance(message.body, Result)
        for refused in message.body.refused:
            told.setdefault(names[refused.worker], set()).add(refused.reason)
    return told


def money_is_whole(sim: Simulation) -> None:
    assert sim.ledger.total() == sim.funds
    assert sim.ledger.held() == 0


async def end(sim: Simulation) -> Simulation:
    await to_the_end(sim)
    return sim


@pytest.mark.parametrize("rounds", range(1, 9) if EVERY_LENGTH else (1, 4))
def test_cheaters_pay_for_nothing_and_the_honest_are_paid(rounds: int, tmp_path: Path, rng: random.Random) -> None:
    """Six of nine workers cheat; of those only two have deltas that are scored with the others: the honest earn what they earn without them.

    Plausibility is looked at from round 4 on, so that runs on both sides of it are tried. In round 1 there is no earlier delta to copy.
    """
    plan = Plan(
        seed=rng.getrandbits(32),
        rounds=rounds,
        workers=len(HONEST) + len(CHEATS),
        instances=2,
        fee_msat=FEE,
        level_msat=LEVEL,
        funds_msat=Msat(LEVEL * 4 * rounds * 12),
        quality={name: 0.0 for name, cheat in CHEATS.items() if cheat in cheaters.USELESS},
    )
    without = simulate(changed(plan, workers=len(HONEST), quality={}), end)
    sim = simulate(changed(plan, runners=runners(CHEATS, tmp_path / "twins")), end)
    money_is_whole(sim)
    money_is_whole(without)
    check_states(sim)
    check_oracles(sim)
    check_nothing_broke(sim)
    gains, before = gained(sim), gained(without)
    assert sum(gains[name] for name in HONEST) >= 0.9 * sum(before[name] for name in HONEST)
    assert all(before[name] == rounds * (4 * LEVEL - FEE) for name in HONEST), "without cheaters all is earned that can be"
    assert all(gains[name] > 0 for name in HONEST)
    fees = Counter(name for name, _ in sim.tickets.payments)
    for name in CHEATS:
        assert gains[name] == -FEE * fees[name], name
        assert fees[name] == rounds, f"{name} paid for every round"
    told = reasons(sim)
    assert told["worker-3"] == {"score 0 ppm is below the first level"}
    assert told["worker-4"] == told["worker-8"] == {"it was not revealed in time"}
    copied = {"its indices are those of an earlier delta"} if rounds > 1 else set()
    assert told["worker-5"] == {"score 0 ppm is below the first level"} | copied
    assert told["worker-6"] == told["worker-7"] == {"its indices are those of another delta of this round"}
    assert not set(told) & set(HONEST)


def test_what_the_copier_shows_is_the_victims_and_nobody_takes_it(tmp_path: Path, seed: int) -> None:
    """The copy is exact: digest, salt and blob are another worker's; only the author is not."""
    plan = Plan(seed=seed, rounds=1, instances=2, fee_msat=FEE, level_msat=LEVEL, runners=runners({"worker-2": "copy-digest"}, tmp_path))
    sim = simulate(plan, end)
    copier = sim.key("worker-2")
    digests = Counter(message.body.commitment for message in sim.said(Commitment) if isinstance(message.body, Commitment))
    assert sorted(digests.values()) == [1, 2], "two commitments, one digest"
    shown = {message.author: message.body for message in sim.said(Reveal) if isinstance(message.body, Reveal)}
    assert [body.salt for author, body in shown.items() if author != copier].count(shown[copier].salt) == 1
    (round_,) = rows_of(sim, "validator-0", Round)
    assert copier not in round_.reveals
    assert gained(sim)["worker-2"] == -FEE
    assert any("is not what was committed to" in note.text for note in sim.participants["coordinator"].notes)


@pytest.mark.parametrize("silent", [1, 2])
def test_silent_validators_of_three(silent: int, seed: int) -> None:
    """One: everybody is paid all the same. Two: nobody's work is used, and everything that was held returns."""
    mute: dict[str, Perform] = {f"validator-{index}": SilentValidator() for index in range(silent)}
    plan = Plan(seed=seed, rounds=2, instances=2, fee_msat=FEE, level_msat=LEVEL, runners=mute)
    sim = simulate(plan, end)
    money_is_whole(sim)
    check_states(sim)
    used = [len(message.body.accepted) for message in sim.said(Result) if isinstance(message.body, Result)]
    if silent == 1:
        assert used == [3, 3]
        assert set(gained(sim).values()) == {2 * (4 * LEVEL - FEE)}
        assert sim.ledger.sent == 2 * 3 * 4
    else:
        assert used == [0, 0]
        assert set(gained(sim).values()) == {-2 * FEE}, "their fees, and nothing else"
        assert sim.ledger.balances["coordinator"] == plan.funds_msat + 2 * 3 * FEE
        assert sim.ledger.sent == 2 * 3 * 4, "all levels of all workers had been held"
        assert {move for _, move in sim.ledger.moves} == {Move.LOCKED, Move.RETURNED}, "and all of it came back"


def test_a_bad_payer_is_refused_before_work_and_not_paid_twice(seed: int) -> None:
    """It cheats in every level, so somebody would have to be lucky four times: nobody commits, and nobody buys another of its tickets."""
    plan = Plan(seed=seed, rounds=3, instances=8, fee_msat=FEE, level_msat=LEVEL, runners={"coordinator": BadPayer()})
    sim = simulate(plan, end)
    money_is_whole(sim)
    assert sim.said(Commitment) == []
    assert sim.ledger.sent == 0, "nothing was ever held"
    for name in HONEST:
        (refused,) = {row.refused for row in rows_of(sim, name, Payee)}
        assert refused is not None
        assert "is not what its seed gives" in refused
        assert [row.reason for row in rows_of(sim, name, Submission)] == ["the coordinator is not trusted any more"]
    assert set(gained(sim).values()) == {-FEE}, "one ticket each, then never again"


def test_a_bad_payer_is_refused_in_seven_of_eight_tries_and_leaves_a_proof_otherwise() -> None:
    """One level, eight instances, one of them false: a try for each worker. Who is taken in works for nothing, and can prove it to anybody.

    Nobody warns the others (that they do: `test_disputes.py`), or who is taken in would not commit either.
    """
    refused = taken_in = 0
    for seed in range(1, 4):
        plan = Plan(
            seed=seed,
            rounds=1,
            workers=16,
            instances=8,
            fee_msat=FEE,
            scoring=ScoringSpec(levels_ppm=(Ppm(400_000),)),
            runners={"coordinator": BadPayer(), **{f"worker-{index}": discreet for index in range(16)}},
        )
        sim = simulate(plan, end)
        money_is_whole(sim)
        tries = {one.pubkey: rows_of(sim, name, Payee)[0].refused for name, one in sim.participants.items() if one.role == "worker"}
        assert len(tries) == 16
        fooled = {key for key, reason in tries.items() if reason is None}
        assert {message.author for message in sim.said(Commitment)} == fooled, "whoever refuses has not committed to anything"
        assert sim.ledger.sent == len(fooled)
        assert all(count == 1 for (_, move), count in sim.ledger.moves.items() if move is Move.RETURNED)
        assert Move.SETTLED not in {move for _, move in sim.ledger.moves}, "a false level opens for nobody"
        texts = [check_proof(proof) for proof in false_offers(sim)]
        for key in tries:
            told = [text for text in texts if key in text]
            assert len(told) == 1
            assert ("does not lie on the committed polynomial" in told[0]) == (key in fooled)
        refused, taken_in = refused + len(tries) - len(fooled), taken_in + len(fooled)
    # Of 48 tries 42 are expected, with a standard deviation of 2.3.
    assert 35 <= refused <= 47
    assert refused + taken_in == 48


async def discreet(effect: Effect, ports: Ports) -> Outcome:
    """As `perform`, but what it knows against others it keeps to itself."""
    if isinstance(effect, Send) and effect.owner.startswith("suspicion/"):
        await trio.sleep_forever()
    return await perform(effect, ports)


def false_offers(sim: Simulation) -> list[Proof]:
    """What anybody can prove of the coordinator from everything that was said."""
    letters = {event.id: event for box in sim.office.letters.values() for event in box}
    proofs = [proof for proof in find_proofs([*sim.relays.events.values(), *letters.values()]) if proof.kind == "false_offer"]
    assert {proof.accused for proof in proofs} == {sim.key("coordinator")}
    return proofs


def changed(plan: Plan, **changes: object) -> Plan:
    """A plan with other fields."""
    return dataclasses.replace(plan, **changes)  # type: ignore[arg-type]
