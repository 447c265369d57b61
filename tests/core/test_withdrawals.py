"""Money of our own that goes to the operator's address by policy: when, how much, and once."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nostrain.core import node
from nostrain.core.effects import Failed, PrepareWithdrawal, SendWithdrawal, SpliceOut, TransactionSent, WithdrawalPrepared
from nostrain.core.inputs import Boot
from nostrain.core.rows import NodeState
from nostrain.core.tables import WithdrawalState
from nostrain.core.timing import DAY_S
from nostrain.core.treasury.withdrawal_rows import Withdrawal
from nostrain.core.treasury.withdrawals import FEES_MSAT, LEAST_MSAT
from nostrain.daemon.wallet import spending
from nostrain.protocol.ledger import LedgerEntry
from nostrain.units import Msat
from nostrain.wire.control import Wallet
from tests.core.actors import HEIGHT, Node, until
from tests.core.withdrawing import ABOVE, ADDRESS, ENOUGH, KEEP, POLICY, RESERVE, SAT, SPLICED, TXID, channel, coin, funds, worker
from tests.docs.examples import COORDINATOR


def sent(there: Node) -> list[LedgerEntry]:
    """Prepare and send; what the ledger got."""
    there.ends(there.asked(PrepareWithdrawal), WithdrawalPrepared(TXID, "psbt"))
    return list(there.ends(there.asked(SendWithdrawal), TransactionSent(TXID)).entries)


def row(there: Node) -> Withdrawal:
    return there.row("withdrawal", Withdrawal)


def test_enough_in_the_wallet_goes_to_the_address_and_into_the_ledger() -> None:
    there = worker(coin(ENOUGH + 1), coin(5 * SAT, "bb" * 32))
    asked = there.asked(PrepareWithdrawal)
    assert (asked.address, asked.amount_msat, asked.feerate_perkb) == (ADDRESS, ABOVE + 5 * SAT, 2000)
    assert asked.coins == ("aa" * 32 + ":0", "bb" * 32 + ":0")
    (entry,) = sent(there)
    assert (entry.kind, entry.sum_msat, entry.payment_hash, entry.change_msat, entry.run) == ("withdrawn", asked.amount_msat, TXID, 0, "")
    assert (row(there).state, row(there).psbt) == (WithdrawalState.SENT, "")
    assert str(TXID) in there.told("withdrawn")[0]


def test_too_little_or_too_young_stays() -> None:
    for coins in ((coin(ENOUGH - 1),), (coin(ENOUGH, height=HEIGHT - 1),), ()):
        there = worker(*coins, channels=(channel(ABOVE + KEEP - 1),))
        assert not there.has("withdrawal")
    assert not worker(coin(10 * ENOUGH), policy=None).has("withdrawal")


def test_what_is_signed_is_committed_before_it_is_sent_and_sent_as_it_is() -> None:
    there = worker(coin(ENOUGH))
    step = there.ends(there.asked(PrepareWithdrawal), WithdrawalPrepared(TXID, "psbt"))
    assert step.state.rows["withdrawal"] == row(there)
    assert (row(there).psbt, row(there).state) == ("psbt", WithdrawalState.SENDING)
    before = there.asked(SendWithdrawal)
    there.identity = msgspec.structs.replace(there.identity, withdraw=None)
    there.take(Boot(there.identity))
    funds(there, coin(ENOUGH))
    assert there.asked(SendWithdrawal) == before == SendWithdrawal("withdrawal", "send:1", TXID, "psbt", ("aa" * 32 + ":0",))


def test_a_channel_that_has_too_much_is_spliced_and_what_arrives_is_sent() -> None:
    there = worker(coin(30_000 * SAT), channels=(channel(ABOVE + KEEP + 999), channel(ABOVE, "ee")))
    asked = there.asked(SpliceOut)
    assert (asked.channel_id, asked.funding_txid, asked.amount_msat) == ("cc" * 32, "dd" * 32, ABOVE)
    there.ends(asked, TransactionSent(SPLICED))
    assert row(there).state is WithdrawalState.SPLICED
    funds(there, coin(30_000 * SAT), coin(ABOVE, SPLICED, HEIGHT - 1), channels=(channel(KEEP),))
    assert not there.asks(PrepareWithdrawal), "not before it is confirmed as deep as it has to be"
    there.block(HEIGHT + 1)
    asked_too = there.asked(PrepareWithdrawal)
    assert asked_too.amount_msat == 30_000 * SAT + ABOVE - RESERVE - FEES_MSAT
    assert len(sent(there)) == 1
    assert row(there).number == 1


def test_the_next_one_waits_until_the_node_has_told_of_the_last() -> None:
    there = worker(coin(ENOUGH))
    sent(there)
    there.at(10)
    assert not there.asks(PrepareWithdrawal), "the coin is spent, whatever the node said before"
    funds(there, coin(ENOUGH, "bb" * 32))
    assert there.asked(PrepareWithdrawal, "prepare:2").coins == ("bb" * 32 + ":0",)


@pytest.mark.parametrize("at", ["splice", "prepare", "send"])
def test_what_failed_for_certain_is_tried_again_later(at: str) -> None:
    there = worker(channels=(channel(2 * ABOVE),)) if at == "splice" else worker(coin(ENOUGH))
    if at == "splice":
        there.ends(there.asked(SpliceOut), Failed("no"))
    elif at == "prepare":
        there.ends(there.asked(PrepareWithdrawal), Failed("no"))
    else:
        there.ends(there.asked(PrepareWithdrawal), WithdrawalPrepared(TXID, "psbt"))
        step = there.ends(there.asked(SendWithdrawal), Failed("no"))
        assert not step.entries
    assert (row(there).state, row(there).failures) == (WithdrawalState.FAILED, 1)
    assert "no" in there.told("withdrawals_failed")[0]
    there.at(3_599)
    assert row(there).number == 1
    assert node.next_deadline(there.state, there.now) is not None
    there.at(3_600)
    assert row(there).number == 2


def test_an_address_that_is_not_the_policys_any_more_gets_nothing() -> None:
    for policy in (None, msgspec.structs.replace(POLICY, address="bcrt1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3qzf4jry")):
        there = worker(coin(ENOUGH))
        asked = there.asked(PrepareWithdrawal)
        there.identity = msgspec.structs.replace(there.identity, withdraw=policy)
        there.take(Boot(there.identity))
        there.ends(asked, WithdrawalPrepared(TXID, "psbt"))
        assert not there.asks(SendWithdrawal)
        assert (row(there).state, row(there).psbt) == (WithdrawalState.FAILED, "")


def test_what_arrives_and_is_needed_as_reserve_does_not_stop_the_next() -> None:
    there = worker(channels=(channel(ABOVE + KEEP),), policy=msgspec.structs.replace(POLICY, reserve_msat=2 * ABOVE))
    there.ends(there.asked(SpliceOut), TransactionSent(SPLICED))
    funds(there, coin(ABOVE, SPLICED), channels=(channel(ABOVE + KEEP, funding="ee"),))
    assert there.asked(SpliceOut, "splice:2").funding_txid == "ee" * 32


def test_a_splice_whose_coin_is_never_seen_is_waited_for_for_a_day() -> None:
    """The peer may have spliced the channel itself when we wanted to, or somebody has spent the coin."""
    there = worker(channels=(channel(ABOVE + KEEP),))
    there.at(DAY_S)
    there.ends(there.asked(SpliceOut), TransactionSent(SPLICED))
    funds(there, channels=(channel(ABOVE + KEEP, funding="ee"),))
    there.at(2 * DAY_S - 1)
    assert not there.asks(SpliceOut)
    assert node.next_deadline(there.state, there.now) == there.now + 1
    there.at(2 * DAY_S)
    assert there.asked(SpliceOut, "splice:2").funding_txid == "ee" * 32


def test_a_coordinator_pays_from_its_channels_and_takes_nothing_out_of_them() -> None:
    there = Node(COORDINATOR, "coordinator")
    there.identity = msgspec.structs.replace(there.identity, withdraw=POLICY)
    there.take(Boot(there.identity))
    there.block()
    funds(there, channels=(channel(10 * ABOVE),))
    assert not there.has("withdrawal")
    funds(there, coin(ENOUGH))
    assert there.asked(PrepareWithdrawal).amount_msat == ABOVE


def test_tickets_can_still_be_bought_with_what_stays_in_the_channel() -> None:
    there = worker().hear(until("manifest"))
    settlement = msgspec.structs.replace(there.run.manifest.settlement, fee_msat=Msat(3 * KEEP))
    manifest = msgspec.structs.replace(there.run.manifest, settlement=settlement)
    there.state = NodeState({**there.state.rows, "run": msgspec.structs.replace(there.run, manifest=manifest)})
    funds(there, channels=(channel(ABOVE + 7 * KEEP),))
    assert there.asked(SpliceOut).amount_msat == ABOVE + KEEP


def test_in_a_run_the_ledger_names_it() -> None:
    there = worker(coin(ENOUGH)).hear(until("manifest"))
    (entry,) = sent(there)
    assert entry.run == there.run.id


def test_the_wallet_shows_the_last_one() -> None:
    there = worker(coin(ENOUGH))
    plain = Wallet("02", "regtest", HEIGHT, ())
    shown = spending(plain, there.state)
    assert shown.coins_msat == ENOUGH
    assert shown.withdrawal is not None
    assert (shown.withdrawal.state, shown.withdrawal.amount_msat) == ("preparing", ABOVE)
    assert spending(plain, worker(policy=None).state) == plain


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(
        st.one_of(
            st.sampled_from(["ok", "fail", "hour", "block"]),
            st.tuples(st.integers(0, 1_500_000), st.integers(0, 1_500_000)),
        ),
        max_size=30,
    )
)
def test_whatever_happens_one_at_a_time_and_never_more_than_there_is(steps: list[str | tuple[int, int]]) -> None:
    there, wallet, clock, height = worker(), 0, 10, int(HEIGHT)
    for step in steps:
        if isinstance(step, tuple):
            wallet = step[0] * SAT
            name = f"{len(there.notes):064x}"
            funds(there, *((coin(wallet, name, 1),) if wallet else ()), channels=(channel(step[1] * SAT),))
        elif step == "hour":
            clock += 3_600
            there.at(clock)
        elif step == "block":
            height += 1
            there.block(height)
        else:
            for effect in node.outstanding(there.state):
                if isinstance(effect, PrepareWithdrawal):
                    there.ends(effect, WithdrawalPrepared(TXID, "psbt") if step == "ok" else Failed("no"))
                elif isinstance(effect, SendWithdrawal | SpliceOut):
                    there.ends(effect, TransactionSent(TXID) if step == "ok" else Failed("no"))
        asked = [effect for effect in node.outstanding(there.state) if isinstance(effect, SpliceOut | PrepareWithdrawal | SendWithdrawal)]
        assert len(asked) <= 1
        for effect in asked:
            if isinstance(effect, PrepareWithdrawal):
                assert effect.amount_msat >= LEAST_MSAT - SAT
            if isinstance(effect, SpliceOut):
                assert effect.amount_msat >= ABOVE
