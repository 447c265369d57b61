"""The devnet's cheaters without processes: who plays what, what the report says of them, and how often a payer can cheat."""

from __future__ import annotations

import math
import random
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest

from nostrain.core.effects import CheckLocks, DrawLocks, Failed, LocksDrawn, LocksOpened, LockTerms, Ok, OpenLocks, Outcome
from nostrain.core.rounds.scoring import SAME_PPM, standings
from nostrain.daemon.runners import locks
from nostrain.devnet import cheated, purse
from nostrain.devnet.cheater import refuse_real_money
from nostrain.devnet.cheaters import CHEATS, BadPayer, parse_cheats, swapped
from nostrain.devnet.command import usage_problem
from nostrain.devnet.forgery import random_delta
from nostrain.devnet.layout import Options, cheats_of, lay_out
from nostrain.devnet.observer import Observer
from nostrain.errors import ConfigError
from nostrain.protocol import messages as m
from nostrain.protocol.jobs import TrainJob
from nostrain.protocol.manifest import CodecSpec, ModelSpec, ScoringSpec, TrainingSpec
from nostrain.protocol.messages import Score, Verdict
from nostrain.sparseloco.codec import decode_untrusted
from nostrain.units import Digest, EventId, Ppm, Pubkey
from tests.docs.examples import COORDINATOR, Examples

ALL = ",".join(CHEATS)
TRIES = 400
INSTANCES = 8


def test_each_cheat_takes_the_last_that_are_free() -> None:
    options = Options(workers=9, validators=3, cheaters=parse_cheats(ALL))
    assert cheats_of(options) == {
        "worker-9": "noise",
        "worker-8": "copy-digest",
        "worker-7": "copy-previous",
        "worker-6": "twin",
        "worker-5": "twin",
        "worker-4": "no-reveal",
        "coordinator": "bad-payer",
        "validator-3": "silent-validator",
    }


def test_the_cheaters_are_in_the_layout(tmp_path: Path) -> None:
    participants = lay_out(tmp_path, Options(workers=2, cheaters=("no-reveal",)), ["ws://127.0.0.1:1"])
    assert {one.name: one.cheat for one in participants if one.cheat} == {"worker-2": "no-reveal"}
    coordinator = participants[0].config.read_text()
    assert "commit_s = 28" in coordinator, "whoever does nothing is waited for, but not as long as by default"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (Options(workers=1, cheaters=("twin",)), "no worker left"),
        (Options(workers=2, cheaters=("twin",)), "0 honest workers"),
        (Options(workers=3, cheaters=("noise", "copy-previous")), "1 honest workers beside 2"),
        (Options(workers=2, validators=2, cheaters=("silent-validator",)), "too few validators"),
        (Options(workers=4, paid=False, cheaters=("noise",)), "leave out --unpaid"),
    ],
)
def test_a_devnet_that_could_not_show_anything_is_refused(options: Options, reason: str, tmp_path: Path) -> None:
    assert reason in (usage_problem(options, tmp_path, None) or "")


@pytest.mark.parametrize("text", ["nose", "noise,noise"])
def test_cheats_that_do_not_exist_or_are_named_twice(text: str) -> None:
    with pytest.raises(ConfigError, match="--cheaters"):
        parse_cheats(text)


def test_no_cheater_runs_on_a_network_with_real_money() -> None:
    from nostrain.config.schema import DaemonConfig

    config = msgspec.convert({"name": "x", "data_dir": "/x", "relays": ["ws://127.0.0.1:1"], "roles": ["worker"]}, DaemonConfig)
    refuse_real_money(config)
    lightning = msgspec.structs.replace(config.lightning, network="bitcoin")
    with pytest.raises(ConfigError, match="cheaters are for devnets"):
        refuse_real_money(msgspec.structs.replace(config, lightning=lightning))


def test_noise_is_a_delta_in_every_respect_but_one(seed: int) -> None:
    job = TrainJob(ModelSpec(), TrainingSpec(), CodecSpec(), "", "", "", 0, None, "", "")
    blobs = {random_delta(job, bytes([seed % 256, at])) for at in range(3)}
    assert len(blobs) == 3
    assert all(len(decode_untrusted(blob, job.tensors, job.codec).indices) == 64 * 224 + 2 * 9 for blob in blobs)
    assert random_delta(job, b"same") == random_delta(job, b"same")


# --- the payer that cheats -------------------------------------------------------------------------------------------------------------


def terms() -> LockTerms:
    return msgspec.structs.replace(Examples().terms, instances=INSTANCES)


async def offered(payer: BadPayer, bound: LockTerms, rng: random.Random, level: int) -> Outcome:
    """One escrow from drawing to the payee's check, with a random choice; `level` is the one in which the payer cheats."""
    ports: Any = FakePorts()
    seeds = tuple(Digest(rng.randbytes(32).hex()) for _ in bound.amounts_msat)
    draw = DrawLocks(owner="payer/x", name="locks", terms=bound, seeds=seeds)
    drawn = await payer(draw, ports)
    assert isinstance(drawn, LocksDrawn)
    chosen = tuple(rng.randrange(INSTANCES) for _ in seeds)
    opened = await payer(OpenLocks(owner="payer/x", name="open", terms=bound, seeds=seeds, chosen=chosen), ports)
    assert isinstance(opened, LocksOpened)
    check = CheckLocks(
        owner="payee/x", name="check", terms=bound, instances=drawn.instances, chosen=chosen, seeds=opened.seeds, locks=opened.locks
    )
    lucky = chosen[level - 1] == payer.bad_index(draw, level)
    outcome = locks.run(check)
    assert isinstance(outcome, Ok if lucky else Failed), "the payee notices whenever the false instance is opened, and only then"
    return outcome


class FakePorts:
    """Enough of `Ports` for arithmetic."""

    async def offload(self, call: Any) -> Any:
        return call()


async def test_a_payer_that_cheats_in_one_level_is_refused_in_seven_of_eight_tries(rng: random.Random) -> None:
    """400 escrows with c = 8: within 4.5 standard deviations of 7/8. A payee never refuses without cause, nor accepts what was opened and false."""
    bound = terms()
    level_one = msgspec.structs.replace(bound, amounts_msat=bound.amounts_msat[:1])
    told = Counter([type(await offered(BadPayer({1}), level_one, rng, 1)) for _ in range(TRIES)])
    spread = math.sqrt(TRIES * 7 / 8 / 8)
    assert abs(told[Failed] - TRIES * 7 / 8) < 4.5 * spread, told
    assert told[Ok] + told[Failed] == TRIES


async def test_a_payer_is_honest_as_long_as_it_was_told_to_be(rng: random.Random) -> None:
    payer, bound = BadPayer(honest_rounds=1), terms()
    seeds = tuple(Digest(rng.randbytes(32).hex()) for _ in bound.amounts_msat)
    ports: Any = FakePorts()
    honest = DrawLocks(owner="payer/x", name="locks", terms=bound, seeds=seeds)
    assert await payer(honest, ports) == locks.run(honest)
    later = msgspec.structs.replace(honest, terms=msgspec.structs.replace(bound, announcement=EventId("ab" * 32)))
    drawn = await payer(later, ports)
    right = locks.run(later)
    assert isinstance(drawn, LocksDrawn)
    assert isinstance(right, LocksDrawn)
    differing = [sum(a != b for a, b in zip(one, two, strict=True)) for one, two in zip(drawn.instances, right.instances, strict=True)]
    assert differing == [1] * 4, "one instance of each level"
    assert await payer(honest, ports) == locks.run(honest), "asked again, the honest round is honest still"
    assert swapped(drawn.instances[0], -1, "") == drawn.instances[0]


# --- copies ----------------------------------------------------------------------------------------------------------------------------


def verdict(number: int, overlap: int) -> Verdict:
    workers = [Pubkey(letter * 64) for letter in "abc"]
    scores = tuple(Score(worker, gain=1_000_000, overlap_round_ppm=Ppm(overlap if worker[0] != "a" else 0)) for worker in workers)
    ids = {"run": EventId("0" * 64), "announcement": EventId("1" * 64), "receipt": EventId("2" * 64)}
    return Verdict(**ids, round=number, salt=Digest("3" * 64), state_id=Digest("4" * 64), losses_before=(), scores=scores)


@pytest.mark.parametrize(
    ("number", "overlap", "refused"),
    [(1, 1_000_000, True), (1, SAME_PPM + 1, True), (1, SAME_PPM, False), (3, 600_000, False), (4, 600_000, True), (4, 500_000, False)],
)
def test_twins_are_refused_in_every_round_and_resemblance_from_the_fourth(number: int, overlap: int, refused: bool) -> None:
    found = standings([verdict(number, overlap)] * 3, [Pubkey(letter * 64) for letter in "abc"], ScoringSpec(), {})
    levels = {key[0]: standing.level for key, standing in found.items()}
    assert levels == {"a": 4, "b": 0 if refused else 4, "c": 0 if refused else 4}


# --- the report ------------------------------------------------------------------------------------------------------------------------

FEE, LEVEL = 20, 100
EXAMPLES = Examples()


def report(gains: dict[str, int], rounds: list[dict[str, tuple[int, bool]]], cheats: dict[str, str]) -> dict[str, Any]:
    """A report of rounds of (level, committed) by worker, with the balances' changes."""
    held = {"before_msat": 1000, "held_msat": 0, "routing_msat": 0}
    total = sum(gains.values())
    entries = [
        {
            "round": number,
            "fee_msat": FEE,
            "validators": {},
            "workers": {
                name: {
                    "reward_msat": LEVEL * level,
                    "fee_msat": FEE * committed,
                    "level": level,
                    "reason": None if level else "score 7 is below the first level",
                }
                for name, (level, committed) in one.items()
            },
        }
        for number, one in enumerate(rounds, start=1)
    ]
    balances = {name: {**held, "after_msat": 1000 + gain} for name, gain in {**gains, "coordinator": -total}.items()}
    cheaters = {name: {"cheat": cheat, "earned_msat": 0, "paid_msat": 0, "why": []} for name, cheat in cheats.items()}
    return {"rounds": entries, "balances": balances, "daemons": {}, "cheaters": cheaters}


def test_a_ticket_that_was_bought_for_nothing_is_no_mismatch() -> None:
    rounds = [{"a": (4, True), "b": (0, False)}, {"a": (4, True), "b": (0, False)}]
    for bought in (0, 1, 2):
        assert purse.mismatches(report({"a": 760, "b": -FEE * bought}, rounds, {})) == []
    for gain in (-3 * FEE, -FEE // 2, FEE):
        assert len(purse.mismatches(report({"a": 760, "b": gain}, rounds, {}))) == 1
    assert purse.mismatches(report({"a": 740, "b": 0}, rounds, {})) != [], "whoever commits has bought one ticket, not two"


def test_a_cheater_that_gains_and_an_honest_worker_that_does_not_are_problems() -> None:
    rounds = [{"a": (4, True), "b": (0, True)}]
    good = report({"a": 380, "b": -FEE}, rounds, {"b": "noise"})
    good["cheaters"]["b"]["paid_msat"] = FEE
    assert cheated.problems(good) == []
    bad = report({"a": 0, "b": 80}, [{"a": (0, True), "b": (1, True)}], {"b": "noise"})
    bad["cheaters"]["b"].update(earned_msat=LEVEL, paid_msat=FEE)
    assert cheated.problems(bad) == [
        "b (noise) earned 100 msat for 20 of fees",
        "no honest worker was paid in round 1",
        "a is honest and was not paid",
    ]


def test_a_payer_that_cheats_has_its_fees_and_no_work() -> None:
    rounds = [{"a": (4, True), "b": (4, True)}, {"a": (0, False), "b": (0, False)}]
    one = report({"a": 360, "b": 360}, rounds, {"coordinator": "bad-payer"})
    one["cheaters"]["coordinator"]["earned_msat"] = cheated.pocketed(one)
    assert cheated.pocketed(one) == 2 * FEE
    assert purse.mismatches(one) == []
    assert cheated.problems(one) == []
    rounds[1]["a"] = (0, True)
    taken_in = report({"a": 360, "b": 360}, rounds, {"coordinator": "bad-payer"})
    assert cheated.problems(taken_in) == ["a committed in round 2, in which the payer cheats"]
    assert cheated.refusals(one, "a") == ["1 × used", "1 × below the first level"]


def test_what_is_published_against_a_payer_is_told() -> None:
    events = (
        *EXAMPLES.events.values(),
        COORDINATOR.says(m.Dispute(EXAMPLES.run, "false_offer", COORDINATOR.pubkey, (EXAMPLES.round_id,)), 1),
    )
    observer = Observer(lambda _: None, {})
    for event in (*events, EXAMPLES.claims["dispute"]):
        observer.take(event)
    counters = {"a": {"offers_refused": 1, "disputes_proven": 2}, "b": {"disputes_proven": 1}, "c": {}}
    one = {"daemons": {name: {"counters": counted} for name, counted in counters.items()} | {"d": None}}
    assert cheated.unmasked(one, observer) == [
        "1 workers refused its offers as fraud before they committed to anything, and buy no more of its tickets",
        "1 disputes are published against it; 2 participants hold them for proven",
    ]
