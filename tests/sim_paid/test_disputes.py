"""Disputes among many: a payer whose cheat survived the cut-and-choose is proved guilty by its victim, a stranger checks that, nobody works on."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from nostrain.audit.dispute import check_dispute
from nostrain.core.effects import Draw, DrawLocks, Drawn, Effect, LocksDrawn, OpenLocks, Outcome, Sign
from nostrain.core.escrow.rows import Payee
from nostrain.core.fraud.dispute_rows import Complaint, Suspicion
from nostrain.core.rows import NodeState, Submission
from nostrain.core.tables import ComplaintState, PayeeState, SuspicionState
from nostrain.daemon.ports import Ports
from nostrain.daemon.runners import perform
from nostrain.devnet.cheaters import BadPayer
from nostrain.errors import RemoteProtocolError
from nostrain.protocol.messages import Commitment, Dispute, Message, Offer, Openings, VerdictHash
from nostrain.testing.simulation import Plan, Simulation
from nostrain.testing.steps import Death, Step
from nostrain.units import Digest, Msat, Pubkey
from nostrain.wire.event import encode_event, parse_event_untrusted
from nostrain.wire.messages import draft, read_message_untrusted
from tests.sim.world import check_nothing_broke, rows_of, simulate, to_the_end

FEE, LEVEL = Msat(500_000), Msat(10_000_000)
VICTIM = "worker-0"
OTHERS = ("worker-1", "worker-2")
LIMIT_S = 5_000


class Lucky(BadPayer):
    """A payer that cheats one worker in its first level, and gets away with it: 1 in 8, so the worker's choice is made for it here."""

    def __init__(self) -> None:
        super().__init__({1})
        self.victim: Pubkey | None = None
        self.chosen = 0

    async def __call__(self, effect: Effect, ports: Ports) -> Outcome:
        if isinstance(effect, DrawLocks | OpenLocks) and effect.terms.payee != self.victim:
            return await perform(effect, ports)
        outcome = await super().__call__(effect, ports)
        if isinstance(effect, DrawLocks) and isinstance(outcome, LocksDrawn):
            self.chosen = self.bad_index(effect, 1)
        return outcome

    async def unlucky(self, effect: Effect, ports: Ports) -> Outcome:
        """The victim: it chooses the false instance."""
        self.victim = ports.signer.pubkey
        outcome = await perform(effect, ports)
        if isinstance(effect, Draw) and isinstance(outcome, Drawn) and effect.name == "choice":
            return Drawn(f"{self.chosen:08x}{outcome.data[8:]}")
        return outcome


def cheated(seed: int, *deaths: Death, rounds: int = 3) -> Simulation:
    """A run with a lucky payer, until its victim's dispute is proven to everyone."""
    payer = Lucky()
    runners = {"coordinator": payer, VICTIM: payer.unlucky}
    plan = Plan(
        seed=seed,
        rounds=rounds,
        instances=8,
        fee_msat=FEE,
        level_msat=LEVEL,
        runners=runners,
        deaths=deaths,
        on_disk=frozenset({"coordinator", VICTIM}),
    )

    async def scenario(sim: Simulation) -> Simulation:
        def known() -> bool:
            return all(one.run is not None and one.run.distrusted is not None for one in sim.live("worker"))

        assert await sim.until(known, limit_s=LIMIT_S)
        await to_the_end(sim)
        return sim

    return simulate(plan, scenario)


def test_a_surviving_cheat_is_disputed_checked_by_strangers_and_ends_the_payers_business(seed: int, tmp_path: Path) -> None:
    sim = cheated(seed)
    assert sim.ledger.total() == sim.funds
    assert sim.ledger.held() == 0
    check_nothing_broke(sim)
    (row,) = rows_of(sim, VICTIM, Payee)
    assert [level.state for level in row.levels] == [PayeeState.CANCELLED, *[PayeeState.SETTLED] * 3], "level 1 never opens"
    # One dispute, by the victim, after its HTLCs were resolved; its evidence is on the relays.
    (said,) = sim.said(Dispute)
    assert said.author == sim.key(VICTIM)
    stranger_checks(sim, said, tmp_path)
    for one in sim.live("validator") + sim.live("worker"):
        (complaint,) = rows_of(sim, one.name, Complaint)
        assert complaint.state is ComplaintState.PROVEN, one.name
    # Everybody was paid for the first round but the victim for one level; nobody worked in another round.
    start = FEE * sim.plan.rounds
    gains = {name: sim.ledger.balances[name] - start for name in (VICTIM, *OTHERS)}
    rounds = {message.body.round for message in sim.said(Commitment) if isinstance(message.body, Commitment)}
    assert rounds == {1}
    tickets = {name: sum(one == name for one, _ in sim.tickets.payments) for name in gains}
    assert all(1 <= count <= 2 for count in tickets.values()), "at most the ticket of the round in which the word came"
    assert gains[VICTIM] == 3 * LEVEL - FEE * tickets[VICTIM]
    assert all(gains[name] == 4 * LEVEL - FEE * tickets[name] for name in OTHERS)


def stranger_checks(sim: Simulation, said: Message, folder: Path) -> None:
    """What `nostrain-ctl audit` does with a relay's events: no secrets, nothing but what was published."""
    dispute, events = said.body, sim.relays.events
    assert isinstance(dispute, Dispute)
    assert (dispute.kind, dispute.accused) == ("false_offer", sim.key("coordinator"))
    evidence = [parse_event_untrusted(encode_event(events[event_id])) for event_id in dispute.evidence]
    assert {Offer, Openings} <= {type(read_message_untrusted(event).body) for event in evidence}
    shown = check_dispute(dispute, evidence)
    assert "does not lie on the committed polynomial" in shown.text
    assert sim.key(VICTIM) in shown.text
    with pytest.raises(RemoteProtocolError, match="not the events"):
        check_dispute(dispute, evidence[1:])


@pytest.mark.parametrize(
    "step", [Step("journal", "commit", "before"), Step("relays", "publish", "before"), Step("relays", "publish", "after")]
)
def test_evidence_survives_a_crash_of_the_victim(step: Step, seed: int) -> None:
    """In the middle of what it says last, the evidence and the dispute: all of it is published, and the dispute once."""
    count = cheated(seed, rounds=1).participants[VICTIM].steps.taken[step]
    for nth in (count - 8, count - 1):
        sim = cheated(seed, Death(VICTIM, step, nth), rounds=1)
        assert sim.participants[VICTIM].crashes == 1
        assert len({message.id for message in sim.said(Dispute) if message.author == sim.key(VICTIM)}) == 1, nth
        (suspicion,) = rows_of(sim, VICTIM, Suspicion)
        assert (suspicion.state, suspicion.events) == (SuspicionState.DISPUTED, ()), nth


@pytest.mark.parametrize("instances", [2, 8])
def test_what_a_bad_payer_keeps_is_one_fee_of_each_worker_in_one_round(instances: int, seed: int) -> None:
    """It cheats in every level, of as many rounds as there are: some see through it, they say so, and the rest works on for nothing never."""
    plan = Plan(seed=seed, rounds=4, instances=instances, fee_msat=FEE, level_msat=LEVEL, runners={"coordinator": BadPayer()})

    async def scenario(sim: Simulation) -> Simulation:
        await to_the_end(sim)
        return sim

    sim = simulate(plan, scenario)
    assert sim.ledger.balances["coordinator"] - plan.funds_msat == plan.workers * FEE
    assert sorted(name for name, _ in sim.tickets.payments) == sorted(one.name for one in sim.live("worker"))
    assert sim.said(Commitment) == []
    assert {message.body.kind for message in sim.said(Dispute) if isinstance(message.body, Dispute)} == {"false_offer"}


def test_a_validator_that_contradicts_itself_is_disputed_once_by_whoever_comes_first() -> None:
    """Everybody sees it; one says so (keys, and with them the order, are those of this seed); nobody lists it again."""
    plan = Plan(seed=1, rounds=3, validators=4, instances=2, level_msat=LEVEL, runners={"validator-0": twofaced})

    async def scenario(sim: Simulation) -> Simulation:
        await to_the_end(sim)
        return sim

    sim = simulate(plan, scenario)
    (said,) = {message.id: message for message in sim.said(Dispute)}.values()
    assert isinstance(said.body, Dispute)
    assert (said.body.kind, said.body.accused) == ("equivocation", sim.key("validator-0"))
    for one in (*sim.live("worker"), *sim.live("validator"), *sim.live("coordinator")):
        assert one.run is not None
        assert sim.key("validator-0") in one.run.faulty, one.name
    for name in OTHERS:
        assert len(rows_of(sim, name, Submission)) == 3


async def twofaced(effect: Effect, ports: Ports) -> Outcome:
    """Publishes a second verdict hash beside its own, in the first round."""
    if isinstance(effect, Sign) and isinstance(effect.body, VerdictHash) and effect.body.round == 1:
        other = msgspec.structs.replace(effect.body, digest=Digest("1" * 64))
        await ports.relays.publish(ports.signer.sign(draft(other, effect.created_at)))
    return await perform(effect, ports)


def test_slander_changes_nothing_and_is_counted(seed: int) -> None:
    """A worker accuses the coordinator with true events that prove nothing, again and again."""
    plan = Plan(seed=seed, rounds=1, instances=2, level_msat=LEVEL)

    async def scenario(sim: Simulation) -> NodeState:
        assert await sim.until(lambda: len(sim.said(Commitment)) >= 3, limit_s=LIMIT_S)
        author = sim.participants["worker-2"]
        run = author.run
        assert run is not None
        ids = sorted(message.id for message in sim.said(Commitment))
        for event_id in [*ids, Digest("1" * 64), Digest("2" * 64)]:
            claim = Dispute(run.id, "equivocation", run.coordinator, (event_id,))
            sim.relays.events.setdefault((event := author.sign(claim)).id, event)
            await sim.participants["worker-0"].runtime.receive(event)  # type: ignore[union-attr]
        await to_the_end(sim)
        state = sim.participants["worker-0"].runtime.state  # type: ignore[union-attr]
        return state

    state = simulate(plan, scenario)
    run = state.rows["run"]
    complaints = [row for row in state.rows.values() if isinstance(row, Complaint)]
    assert sorted(row.state.value for row in complaints) == ["refuted"] * 3 + ["unheard"] * 2
    assert run.distrusted is None  # type: ignore[union-attr]
    assert max(run.accusers.values()) == 3  # type: ignore[union-attr]
    assert run.finished  # type: ignore[union-attr]
