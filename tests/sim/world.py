"""Running a simulated network in a test, and what must hold of every one of them, whatever went wrong."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import trio
from trio._core import _run as scheduler
from trio.testing import MockClock

from nostrain.core.escrow.rows import Dues, Share, Split
from nostrain.core.escrow.share import LEAST_MSAT, OPEN
from nostrain.core.rows import Round
from nostrain.ports.lightning import HoldState
from nostrain.protocol.messages import (
    Announcement,
    Attestation,
    Confirmation,
    Enrolment,
    EpochAttestation,
    Message,
    Offer,
    Openings,
    OracleAnnouncements,
    Result,
)
from nostrain.testing.simulation import Plan, Simulation
from nostrain.units import Digest, EventId, Pubkey

T = TypeVar("T")
LIMIT_S = 20_000
MEMORY = Path("/dev/shm")
"""Where there is one, the participants' folders are made there: a simulation opens thousands of files."""


def simulate(plan: Plan, scenario: Callable[[Simulation], Awaitable[T]]) -> T:
    """Run `scenario` inside a living network, in virtual time; no message may break a machine in it, whoever cheats."""

    async def main(where: Path) -> T:
        sim = Simulation(plan, where)
        async with sim.running():
            result = await scenario(sim)
        check_no_message_broke(sim)
        return result

    # trio runs tasks that are ready in random order; a seed must repeat that too, or no failure could be looked at twice.
    scheduler._ALLOW_DETERMINISTIC_SCHEDULING = True
    scheduler._r.seed(plan.seed)
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as made:
        return trio.run(main, Path(made), clock=MockClock(autojump_threshold=0))


async def to_the_end(sim: Simulation, *, but: frozenset[str] = frozenset()) -> None:
    """Everyone sees the last round closed and confirms its state; then nothing is held any more."""
    awaited = [one for name, one in sim.participants.items() if name not in sim.plan.absent | but]

    def finished() -> bool:
        return all(one.run is not None and one.run.finished and one.replica is not None for one in awaited)

    def confirmed() -> bool:
        return all(one.replica is not None and one.replica.round == sim.plan.rounds and one.replica.confirming is None for one in awaited)

    assert await sim.until(finished, limit_s=LIMIT_S), {one.name: one.run and (one.run.round, one.run.halted) for one in awaited}
    assert await sim.until(confirmed, limit_s=LIMIT_S), {one.name: one.replica for one in awaited}
    await sim.until(lambda: sim.ledger.held() == 0, limit_s=LIMIT_S)
    await sim.until(lambda: split_through(sim) in (None, sim.plan.rounds) and not owed(sim), limit_s=LIMIT_S)
    await trio.sleep(60)


def split_through(sim: Simulation) -> int | None:
    """The last round whose fees are split; None where there are none."""
    if not sim.plan.paid or sim.plan.fee_msat * sim.plan.validator_share_ppm == 0:
        return None
    return max((row.through for row in rows_of(sim, "coordinator", Split)), default=0)


def owed(sim: Simulation) -> list[Dues]:
    """Validators to whom the coordinator has still something to pay."""
    under_way = {row.validator for row in rows_of(sim, "coordinator", Share) if row.state in OPEN}
    return [row for row in rows_of(sim, "coordinator", Dues) if row.due_msat >= LEAST_MSAT or row.validator in under_way]


def check_all(sim: Simulation, *, but: frozenset[Pubkey] = frozenset()) -> None:
    """Every invariant; the keys in `but` may contradict themselves."""
    check_money(sim)
    check_payments(sim)
    check_states(sim)
    check_one_word_each(sim, but=but)
    check_oracles(sim)
    check_nothing_broke(sim)


def check_money(sim: Simulation) -> None:
    """Money is conserved, nothing is held, and every worker has what its settled levels pay."""
    assert sim.ledger.total() == sim.funds
    assert sim.ledger.held() == 0
    for name, one in sim.participants.items():
        settled = [invoice for invoice in sim.ledger.invoices.values() if invoice.payee == name and invoice.state is HoldState.PAID]
        if one.role != "coordinator":
            assert sim.ledger.balances[name] == sum(invoice.amount_msat for invoice in settled)


def locked_levels(sim: Simulation) -> dict[tuple[EventId, Pubkey, int], Digest]:
    """(round, worker, level) → payment hash of every level for which an invoice was made."""
    offers = {message.id: message.body for message in sim.mailed(Offer)}
    found = {}
    for message in sim.mailed(Openings):
        assert isinstance(message.body, Openings)
        offer = offers[message.body.offer]
        assert isinstance(offer, Offer)
        for level, lock in enumerate(message.body.locks, start=1):
            if lock.payment_hash in sim.ledger.invoices:
                found[offer.announcement, offer.payee, level] = lock.payment_hash
    return found


def attested(sim: Simulation) -> dict[tuple[EventId, Pubkey], list[int]]:
    """(round, worker) → the levels attested for its pay, one for each validator, highest first. An epoch's are those of its first round."""
    levels: dict[tuple[EventId, Pubkey], dict[Pubkey, int]] = defaultdict(dict)
    for message in sim.said(EpochAttestation if sim.plan.epoch_rounds > 1 else Attestation):
        assert isinstance(message.body, Attestation | EpochAttestation)
        for item in message.body.items:
            levels[message.body.announcement, item.payee][message.author] = sum(item.digits)
    return {key: sorted(found.values(), reverse=True) for key, found in levels.items()}


def reached(sim: Simulation, announcement: EventId, worker: Pubkey) -> int:
    """The level that t validators attested."""
    levels = attested(sim).get((announcement, worker), [])
    return levels[sim.plan.threshold - 1] if len(levels) >= sim.plan.threshold else 0


def check_payments(sim: Simulation) -> None:
    """A level that was held is paid if and only if t validators attested it (their attestations are all in time: late ones are not made)."""
    for (announcement, worker, level), payment_hash in locked_levels(sim).items():
        invoice = sim.ledger.invoices[payment_hash]
        deserved = reached(sim, announcement, worker) >= level
        if invoice.state is HoldState.PAID:
            assert deserved, f"level {level} of {worker[:8]} was paid with {attested(sim).get((announcement, worker))}"
        elif deserved:
            assert invoice.payer is None, f"level {level} of {worker[:8]} was held, attested and not paid"


def check_states(sim: Simulation) -> None:
    """Everyone who confirmed a round found the state of its result; nobody diverged or halted."""
    results = {message.id: message.body for message in sim.said(Result)}
    for message in sim.said(Confirmation):
        body = message.body
        assert isinstance(body, Confirmation)
        if body.result in results:
            result = results[body.result]
            assert isinstance(result, Result)
            assert (body.state_id, body.root) == (result.state_id, result.root) or not result.accepted
    heads = {(one.run.head, one.replica.state_id) for one in sim.participants.values() if one.run and one.replica and one.run.finished}
    assert len(heads) <= 1


def confirmations(sim: Simulation, number: int) -> dict[Pubkey, Digest]:
    """Who confirmed which state in a round."""
    bodies = [(message.author, message.body) for message in sim.said(Confirmation)]
    return {author: body.state_id for author, body in bodies if isinstance(body, Confirmation) and body.round == number}


def check_one_word_each(sim: Simulation, *, but: frozenset[Pubkey] = frozenset()) -> None:
    """Nobody says two different things: one event of a kind and stage, author and round (and recipient, if private)."""
    said: dict[tuple[object, ...], set[EventId]] = defaultdict(set)
    for message in (*sim.said(object), *sim.mailed(object)):
        if not isinstance(message.body, Enrolment):
            said[subject(message)].add(message.id)
    doubled = {key: ids for key, ids in said.items() if len(ids) > 1 and key[1] not in but}
    assert not doubled


def subject(message: Message) -> tuple[object, ...]:
    """What a message is about: two with one subject contradict each other."""
    body = message.body
    about = body.parent if isinstance(body, Announcement) else getattr(body, "announcement", None)
    extra: object = None
    if isinstance(body, OracleAnnouncements):
        extra = tuple(item.event_id for item in body.items)
    elif isinstance(body, Offer):
        extra = body.payee
    return type(body), message.author, about, getattr(body, "offer", None), extra


def check_oracles(sim: Simulation) -> None:
    """No nonce is announced for two events, and none ever signs two outcomes."""
    announced: dict[str, str] = {}
    signed: dict[str, int] = {}
    for message in sim.said(OracleAnnouncements):
        assert isinstance(message.body, OracleAnnouncements)
        for item in message.body.items:
            for nonce in item.nonces:
                assert announced.setdefault(nonce, item.event_id + item.oracle) == item.event_id + item.oracle
    for message in (*sim.said(Attestation), *sim.said(EpochAttestation)):
        assert isinstance(message.body, Attestation | EpochAttestation)
        for attestation in message.body.items:
            for nonce, digit in zip(attestation.nonces, attestation.digits, strict=True):
                assert signed.setdefault(nonce, digit) == digit


def check_nothing_broke(sim: Simulation) -> None:
    """Nobody halted, diverged, or refused what an honest participant said."""
    check_no_message_broke(sim)
    for one in sim.participants.values():
        assert not [note.text for note in one.notes if note.counter in ("runs_halted", "states_diverged", "offers_refused")]


def check_no_message_broke(sim: Simulation) -> None:
    """What others say is at worst refused: a machine that breaks over it has a bug."""
    broken = [note.text for one in sim.participants.values() for note in one.notes if note.counter == "messages_broken"]
    assert not broken, broken


def results(sim: Simulation) -> list[Result]:
    """The result of every round, in order."""
    found = [message.body for message in sim.said(Result)]
    return sorted((body for body in found if isinstance(body, Result)), key=lambda body: body.round)


def rows_of(sim: Simulation, name: str, kind: type[T]) -> list[T]:
    """Rows of one type in a participant's state."""
    runtime = sim.participants[name].runtime
    return [row for row in runtime.state.rows.values() if isinstance(row, kind)] if runtime else []


def round_rows(sim: Simulation, name: str) -> dict[int, Round]:
    """A participant's view of every round that it keeps."""
    return {row.announcement.round: row for row in rows_of(sim, name, Round)}


def accepted_names(sim: Simulation, result: Result) -> set[str]:
    """Names of the workers whose deltas a result uses."""
    names = {one.pubkey: name for name, one in sim.participants.items()}
    return {names[item.worker] for item in result.accepted}
