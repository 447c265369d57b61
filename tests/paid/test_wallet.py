"""`nostrain-ctl wallet` and `earnings`: what a node holds and what the rounds brought, from the daemon's state to the lines on a terminal."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import msgspec
import pytest
import trio
from click.testing import CliRunner, Result

from nostrain.config.load import load_config
from nostrain.core.rows import NodeState, Run
from nostrain.core.treasury.liquidity_rows import LightningNode, Peer
from nostrain.ctl.earnings import earnings_text
from nostrain.ctl.main import main
from nostrain.ctl.money import sat, wallet_text
from nostrain.daemon.control import Control
from nostrain.daemon.status import PAGE, Node
from nostrain.daemon.wallet import earnings, read_wallet
from nostrain.engine import EngineProcess
from nostrain.errors import Unavailable
from nostrain.protocol.ledger import LedgerEntry, LedgerTotal
from nostrain.testing.simulation import Plan, Simulation
from nostrain.units import BlockHeight, Digest, EventId, Msat, Pubkey, UnixTime
from nostrain.wire.control import MAX_LINE, Answer, Earnings, LedgerPage, RoundEarnings, Status, Wallet, WalletChannel
from tests.core.actors import EXAMPLES, MESSAGES
from tests.daemon.examples import example
from tests.docs.examples import COORDINATOR, WORKERS
from tests.paid.conftest import SimnetProcess
from tests.paid.holding import CLTV, HELD, hold
from tests.sim.world import simulate, to_the_end

FEE = Msat(500_000)


async def test_a_wallet_shows_what_is_held_and_for_how_long(simnet: SimnetProcess) -> None:
    before = await read_wallet(simnet.socket("coordinator"))
    await hold(simnet)
    payer, payee = await read_wallet(simnet.socket("coordinator")), await read_wallet(simnet.socket("worker-1"))
    assert payer.network == "regtest"
    (to_worker,) = [channel for channel in payer.channels if channel.peer_id == payee.node_id]
    (channel,) = payee.channels
    assert (to_worker.held_msat, to_worker.incoming_msat, to_worker.htlcs_out, to_worker.htlcs_in) == (HELD, 0, 1, 0)
    assert (channel.held_msat, channel.incoming_msat, channel.htlcs_in, channel.slots) == (0, HELD, 1, 30)
    assert channel.blocks_left is not None
    assert CLTV <= channel.blocks_left <= CLTV + 3
    assert sum(one.spendable_msat for one in before.channels) - sum(one.spendable_msat for one in payer.channels) == HELD
    await simnet.control("mine", blocks=10)
    (later,) = (await read_wallet(simnet.socket("worker-1"))).channels
    assert later.blocks_left == channel.blocks_left - 10
    lines = wallet_text(payer).splitlines()
    assert len(lines) == 1 + 1 + 2 + 1
    assert "1,234.567" in lines[-1]
    assert str(to_worker.blocks_left) in lines[-1]


async def test_peers_are_named_after_the_participants_whose_nodes_they_are(simnet: SimnetProcess) -> None:
    plain = await read_wallet(simnet.socket("coordinator"))
    assert {(channel.owner, channel.owner_name) for channel in plain.channels} == {(None, None)}
    (first, second), known, unknown = (channel.peer_id for channel in plain.channels), WORKERS[0].pubkey, Pubkey("ee" * 32)
    peers = tuple(Peer(node_id, True, Msat(0), Msat(0), 0, 0, owner) for node_id, owner in ((first, known), (second, unknown)))
    said = {known: (EventId("01" * 32), UnixTime(1), MESSAGES["enrolment worker 0"].body)}
    run = Run(EXAMPLES.run, COORDINATOR.pubkey, EXAMPLES.manifest, EXAMPLES.run, EXAMPLES.state_id, enrolled=said)  # type: ignore[arg-type]
    state = NodeState({"lightning": LightningNode("ready", None, peers), "run": run})
    found = await read_wallet(simnet.socket("coordinator"), state)
    assert [(channel.owner, channel.owner_name) for channel in found.channels] == [(known, "worker-1"), (unknown, None)]
    assert f"worker-1 {known[:8]}" in wallet_text(found)
    assert unknown[:16] in wallet_text(found)


async def test_a_node_that_is_away_is_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="does not answer"):
        await read_wallet(tmp_path / "nobody")


def test_earnings_are_what_the_ledger_has() -> None:
    async def scenario(sim: Simulation) -> dict[str, Earnings]:
        await to_the_end(sim)
        found = {}
        for name, one in sim.participants.items():
            assert one.runtime is not None
            found[name] = earnings(one.runtime.state, await one.runtime.totals())
            net = sum(entry.reward_msat + entry.fee_msat + entry.share_msat for entry in found[name].rounds)
            assert net == sim.ledger.balances[name] - sim.started[name]
            assert one.role == "validator" or net == sum(total.change_msat for total in found[name].totals)
        return found

    found = simulate(Plan(workers=3, instances=2, fee_msat=FEE, quality={"worker-2": 0.1}), scenario)
    assert [entry.levels for entry in found["worker-0"].rounds] == [4, 4]
    assert [(entry.levels, entry.fee_msat) for entry in found["worker-2"].rounds] == [(0, -FEE), (0, -FEE)]
    assert "below the first level" in found["worker-2"].rounds[0].state
    assert [(entry.levels, entry.fee_msat) for entry in found["coordinator"].rounds] == [(8, 3 * FEE)] * 2
    assert [(entry.share_msat, entry.state) for entry in found["validator-0"].rounds] == [(FEE // 2, "attested")] * 2
    assert all(entry.locked_msat == 0 for one in found.values() for entry in one.rounds)
    assert {total.kind: total.entries for total in found["coordinator"].totals} == {
        "paid": 16,
        "refunded": 8,
        "ticket_sold": 6,
        "share_paid": 3,
    }
    assert {total.kind: total.entries for total in found["worker-0"].totals} == {"settled": 8, "ticket_bought": 2}


def test_totals_outlast_the_rounds_that_are_kept() -> None:
    """Twelve rounds, of which the state keeps eight: the ledger has them all, to the msat, and page after page."""

    async def scenario(sim: Simulation) -> None:
        await to_the_end(sim)
        for name in ("coordinator", "worker-0"):
            runtime = sim.participants[name].runtime
            assert runtime is not None
            found = earnings(runtime.state, await runtime.totals())
            kept = sum(entry.reward_msat + entry.fee_msat + entry.share_msat for entry in found.rounds)
            net = sum(total.change_msat for total in found.totals)
            assert len(found.rounds) < sim.plan.rounds
            assert abs(kept) < abs(net)
            assert net == sim.ledger.balances[name] - sim.started[name]
            pages = [await runtime.ledger(start, 10) for start in range(1, 200, 10)]
            entries = [entry for page in pages for _, entry in page]
            assert sum(entry.change_msat for entry in entries) == net
            assert {entry.round for entry in entries} == set(range(1, sim.plan.rounds + 1))

    simulate(Plan(rounds=12, workers=2, instances=2, fee_msat=FEE), scenario)


def test_what_is_locked_is_not_earned_yet() -> None:
    async def scenario(sim: Simulation) -> tuple[Earnings, Earnings]:
        assert await sim.until(lambda: sim.ledger.held() == 2 * 4 * sim.plan.level_msat, limit_s=1_000)
        states = [sim.participants[name].runtime for name in ("worker-0", "coordinator")]
        assert await sim.until(lambda: all(earnings(one.state).rounds[0].locked_msat for one in states if one), limit_s=100)
        mine, payer = (earnings(one.state) for one in states if one)
        return mine, payer

    mine, payer = simulate(Plan(rounds=1, workers=2, instances=2, fee_msat=FEE), scenario)
    assert (mine.rounds[0].levels, mine.rounds[0].reward_msat, mine.rounds[0].locked_msat) == (0, 0, 40_000_000)
    assert (payer.rounds[0].levels, payer.rounds[0].reward_msat, payer.rounds[0].locked_msat) == (0, 0, 80_000_000)


def test_nothing_is_earned_without_a_run_or_in_one_that_is_not_paid() -> None:
    with pytest.raises(Unavailable, match="no run was found yet"):
        earnings(NodeState())

    async def scenario(sim: Simulation) -> None:
        worker = sim.participants["worker-0"]
        assert await sim.until(lambda: worker.run is not None, limit_s=1_000)
        assert worker.runtime is not None
        with pytest.raises(Unavailable, match="the run simulated is not paid"):
            earnings(worker.runtime.state)

    simulate(Plan(rounds=1, workers=1, paid=False), scenario)


EARNED = Earnings(
    run=EventId("ab" * 32),
    name="a\x1brun",
    rounds_closed=10,
    rounds=(
        RoundEarnings(9, EventId("01" * 32), 4, 400_000, -20_000, 0, 0, "accepted"),
        RoundEarnings(10, EventId("02" * 32), 0, 0, -20_001, 0, 100_000, "refused: \x1b[2Jscore"),
    ),
    totals=(
        LedgerTotal(EventId("ab" * 32), "settled", 40, Msat(4_000_000)),
        LedgerTotal(EventId("ab" * 32), "ticket_bought", 10, Msat(200_001)),
    ),
)
ENTRY = LedgerEntry(
    UnixTime(1_767_225_600), EventId("ab" * 32), 9, EventId("01" * 32), "settled", Msat(100_000), Digest("cd" * 32), Pubkey("ef" * 32)
)
WALLET = Wallet(
    "02" * 33,
    "regtest",
    BlockHeight(800_000),
    (WalletChannel("03" * 33, "CHANNELD_NORMAL", False, Msat(1), Msat(2), Msat(0), Msat(0), 0, 2, 30, None, Pubkey("ab" * 32), "w"),),
)


@asynccontextmanager
async def daemon(path: Path, control: Control) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        await nursery.start(control.serve, path)
        yield
        nursery.cancel_scope.cancel()


async def command(path: Path, name: str, *options: str) -> Result:
    return await trio.to_thread.run_sync(lambda: CliRunner().invoke(main, [name, "--control", str(path), *options]))


async def test_the_commands_show_what_the_daemon_answers(tmp_path: Path) -> None:
    async def wallet() -> Wallet:
        return WALLET

    async def earned_() -> Earnings:
        return EARNED

    async with daemon(tmp_path / "s", Control(lambda: example(Status), wallet, earned_)):
        shown, earned = await command(tmp_path / "s", "wallet"), await command(tmp_path / "s", "earnings")
        as_json = await command(tmp_path / "s", "earnings", "--json")
        both = await command(tmp_path / "s", "earnings", "--json", "--csv")
    assert (shown.exit_code, earned.exit_code, as_json.exit_code, both.exit_code) == (0, 0, 0, 2)
    assert msgspec.json.decode(as_json.output, type=Earnings) == EARNED
    assert shown.output.splitlines() == wallet_text(WALLET).splitlines()
    assert "CHANNELD_NORMAL (away)" in shown.output
    lines = earned.output.splitlines()
    assert lines == earnings_text(EARNED).splitlines()
    assert lines[2].split() == ["9", "4", "400", "-20", "0", "380", "0", "accepted"]
    assert lines[4].split()[:7] == ["these", "4", "400", "-40.001", "0", "359.999", "100"]
    assert lines[5].startswith("rounds before 9 are not shown")
    assert lines[9].split() == ["abababababababab", "40", "4,000", "4,000", "settled"]
    assert lines[10].split() == ["abababababababab", "10", "200.001", "-200.001", "ticket_bought"]
    assert lines[11].split() == ["all", "runs", "50", "3,799.999"]
    assert "\x1b" not in earned.output


async def test_the_ledger_is_written_as_csv_page_after_page(tmp_path: Path) -> None:
    entries = [msgspec.structs.replace(ENTRY, round=number, kind="refunded" if number == 2 else "settled") for number in range(1, 6)]

    async def ledger(start: int) -> LedgerPage:
        found = tuple(enumerate(entries[start - 1 :][:2], start=start))
        return LedgerPage(found, more=start + 2 <= len(entries))

    async with daemon(tmp_path / "s", Control(lambda: example(Status), ledger=ledger)):
        shown = await command(tmp_path / "s", "earnings", "--csv")
    assert shown.exit_code == 0, shown.output
    rows = list(csv.DictReader(io.StringIO(shown.output)))
    assert [(row["seq"], row["round"]) for row in rows] == [(str(number), str(number)) for number in range(1, 6)]
    assert rows[0] == {
        "seq": "1",
        "time": "2026-01-01T00:00:00Z",
        "run": "ab" * 32,
        "round": "1",
        "kind": "settled",
        "amount_msat": "100000",
        "payment_hash": "cd" * 32,
        "party": "ef" * 32,
        "sum_msat": "100000",
    }
    assert (rows[1]["kind"], rows[1]["amount_msat"], rows[1]["sum_msat"]) == ("refunded", "0", "100000")


async def test_a_page_of_the_ledger_fits_into_an_answer() -> None:
    largest = msgspec.structs.replace(ENTRY, at=UnixTime(1 << 62), round=1 << 62, sum_msat=Msat(1 << 62), kind="ticket_bought")
    page = Answer(ledger=LedgerPage(tuple((1 << 62, largest) for _ in range(PAGE)), more=True))
    assert len(msgspec.json.encode(page)) < MAX_LINE


async def test_a_daemon_without_lightning_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "n.toml"
    path.write_text(f'name = "n"\ndata_dir = "{tmp_path}"\nroles = ["worker"]\nrelays = ["ws://127.0.0.1:1"]\n')
    node = Node(load_config(path, (), {}), Pubkey("ab" * 32), cast("EngineProcess", None))
    async with daemon(tmp_path / "s", Control(node.status, node.wallet, node.earnings)):
        shown, earned = await command(tmp_path / "s", "wallet"), await command(tmp_path / "s", "earnings")
    assert shown.exit_code == earned.exit_code == 1
    assert "set lightning.socket" in shown.output
    assert "no run was found yet" in earned.output


@pytest.mark.parametrize(("msat", "text"), [(0, "0"), (1, "0.001"), (-20_000, "-20"), (1_234_567_890, "1,234,567.89"), (-999, "-0.999")])
def test_amounts_are_exact(msat: int, text: str) -> None:
    assert sat(msat) == text


def test_answers_survive_the_wire() -> None:
    for value in (WALLET, EARNED):
        assert msgspec.json.decode(msgspec.json.encode(value), type=type(value)) == value
