"""`nostrain-ctl wallet plan`: the channel that it asks for pays every round it promises, and a smaller one does not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import msgspec
import pytest
import trio
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from nostrain.config.load import load_config
from nostrain.core.identity import Identity
from nostrain.core.rows import NodeState, Run
from nostrain.core.treasury.capacity import commitment_msat
from nostrain.core.treasury.liquidity_rows import LightningNode, Peer
from nostrain.ctl.main import main
from nostrain.ctl.money import plan_text
from nostrain.daemon.channel_plan import channel_plan
from nostrain.daemon.control import Control
from nostrain.daemon.status import Node
from nostrain.devnet.simnet.channels import Channel
from nostrain.engine import EngineProcess
from nostrain.errors import Unavailable
from nostrain.protocol.manifest import SettlementSpec
from nostrain.units import Msat, Pubkey
from nostrain.wire.control import ChannelPlan, Status
from tests.core.actors import EXAMPLES
from tests.daemon.examples import example
from tests.docs.examples import COORDINATOR

SPEC = SettlementSpec(mode="hold", pool_msat=Msat(112_000_000), slots=70, fee_msat=Msat(80_000), ticket_server="http://s")


def lasts(plan: ChannelPlan, capacity: int, feerate_perkb: int) -> bool:
    """Whether a channel of `capacity` carries every full round of the plan, a ticket first, by the simnet's own rules of reserves."""
    channel = Channel(("hub", "worker"), "1x1x1", {"hub": Msat(capacity - plan.push_msat), "worker": plan.push_msat})
    kept = commitment_msat(plan.levels, feerate_perkb)
    for _ in range(plan.rounds):
        if channel.spendable("worker") < plan.fee_msat:
            return False
        channel.to_us["worker"] = Msat(channel.to_us["worker"] - plan.fee_msat)
        channel.to_us["hub"] = Msat(channel.to_us["hub"] + plan.fee_msat)
        a_round = plan.levels * plan.level_msat
        if channel.spendable("hub") - kept < a_round:
            return False
        channel.to_us["hub"] = Msat(channel.to_us["hub"] - a_round)
        channel.to_us["worker"] = Msat(channel.to_us["worker"] + a_round)
    return True


@given(
    pool_sat=st.integers(100_000, 1 << 32),
    slots=st.integers(1, 70),
    levels=st.integers(1, 4),
    rounds=st.integers(1, 40),
    feerate=st.integers(0, 100_000),
    fee_ppm=st.integers(0, 50_000),
)
def test_the_planned_channel_lasts_for_all_rounds(pool_sat: int, slots: int, levels: int, rounds: int, feerate: int, fee_ppm: int) -> None:
    spec = msgspec.structs.replace(SPEC, pool_msat=Msat(pool_sat * 1000), slots=slots, fee_msat=Msat(0))
    fee = Msat(spec.level_msat(levels) * levels * fee_ppm // 1_000_000)
    plan = channel_plan(msgspec.structs.replace(spec, fee_msat=fee), levels, slots, rounds, feerate, None)
    assert lasts(plan, plan.capacity_msat, feerate)
    if plan.reserve_msat > 546_000:
        assert not lasts(plan, plan.capacity_msat * 98 // 100 - 2_000, feerate), "nor is it much more than is needed"


def test_seventy_workers_need_what_one_would_reckon_by_hand() -> None:
    peers = (Peer("02", True, Msat(1_600_000), Msat(0), 30, 30), Peer("03", True, Msat(1_599_999), Msat(0), 30, 30))
    plan = channel_plan(SPEC, 4, 70, 10, 1000, LightningNode("ready", None, peers))
    assert (plan.level_msat, plan.levels, plan.workers, plan.rounds) == (400_000, 4, 70, 10)
    assert plan.sent_msat == 1_600_000 + 9 * 1_520_000
    assert (plan.shared_channels, plan.slots) == (10, 30)
    assert commitment_msat(4, 1000) == (-(-(1124 + 6 * 172) * 2 // 4) + 660) * 1000
    assert plan.capacity_msat == plan.sent_msat + 2 * plan.reserve_msat + commitment_msat(4, 1000)
    assert plan.push_msat == plan.reserve_msat + 80_000
    assert (plan.spendable_msat, plan.peers_ready) == (3_199_999, 1)
    text = plan_text(plan)
    assert "for 70 workers that reach every level of 10 rounds" in text
    assert "1,600 a worker, 112,000 in all" in text
    assert "80 a worker and round come back, 5 % of a full round" in text
    assert "a whole round fits to 1 peers of 70 needed" in text


@asynccontextmanager
async def daemon(path: Path, control: Control) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        await nursery.start(control.serve, path)
        yield
        nursery.cancel_scope.cancel()


async def command(*arguments: str) -> Result:
    return await trio.to_thread.run_sync(lambda: CliRunner().invoke(main, [*arguments]))


def node_of(folder: Path, state: NodeState) -> Node:
    path = folder / "n.toml"
    path.write_text(f'name = "n"\ndata_dir = "{folder}"\nroles = ["validator"]\nrelays = ["ws://127.0.0.1:1"]\n')

    class Still:
        def __init__(self) -> None:
            self.state = state

    return Node(load_config(path, (), {}), Pubkey("ab" * 32), cast("EngineProcess", None), runtime=Still())  # type: ignore[arg-type]


async def test_the_command_asks_the_daemon_and_takes_the_manifest_for_what_is_not_said(tmp_path: Path) -> None:
    run = Run(EXAMPLES.run, COORDINATOR.pubkey, EXAMPLES.manifest, EXAMPLES.run, EXAMPLES.state_id)
    node, path = node_of(tmp_path, NodeState({"run": run})), str(tmp_path / "s")
    async with daemon(tmp_path / "s", Control(lambda: example(Status), plan=node.plan)):
        plain = await command("wallet", "plan", "--control", path, "--json")
        asked = await command("wallet", "plan", "--control", path, "--workers", "70", "--rounds", "3", "--json")
        shown = await command("wallet", "plan", "--control", path)
    assert plain.exit_code == asked.exit_code == shown.exit_code == 0, plain.output
    found = msgspec.json.decode(plain.output, type=ChannelPlan)
    assert found == node.plan(0, 0)
    assert (found.workers, found.rounds, found.level_msat, found.spendable_msat) == (8, EXAMPLES.manifest.rounds, 250_000, None)
    other = msgspec.json.decode(asked.output, type=ChannelPlan)
    assert (other.workers, other.rounds) == (70, 3)
    assert shown.output.splitlines() == plan_text(found).splitlines()


async def test_without_a_run_that_pays_there_is_nothing_to_plan(tmp_path: Path) -> None:
    me = Identity(Pubkey("ab" * 32), "n", ("worker",), "")
    for state in (NodeState(), NodeState({"node": me})):
        with pytest.raises(Unavailable, match="no paid run"):
            node_of(tmp_path, state).plan(0, 0)
