"""Money out of channels and wallets: the contract of `ports.lightning.Lightning`, on the fake, the simnet and, where they are on PATH, real nodes."""

from __future__ import annotations

import pytest
import trio

from nostrain.errors import OutcomeUnknown, Unavailable
from nostrain.ports.lightning import Prepared, SentResult, SpliceOrder
from nostrain.units import Digest
from tests.contracts.chest import PATIENCE_S, RESERVED_BLOCKS, SENT_SAT, Chest


async def spliced(chest: Chest, order: SpliceOrder) -> SentResult:
    """Until it is done, or has failed: two that run at once may be in each other's way for a moment."""
    with trio.fail_after(PATIENCE_S):
        while True:
            try:
                return await chest.payer.splice_out(order)
            except (Unavailable, OutcomeUnknown):
                await trio.sleep(0.1)


async def test_what_is_taken_out_of_a_channel_is_in_the_wallet_after_a_block(chest: Chest) -> None:
    order = await chest.splice()
    result = await chest.payer.splice_out(order)
    assert result.txid is not None
    found = await chest.payer.funds()
    assert order.channel_id not in {one.channel_id for one in found.channels}, "one splice at a time"
    assert result.txid not in {coin.outpoint.partition(":")[0] for coin in found.coins}
    await chest.mine()
    after = await chest.splice()
    assert after.channel_id == order.channel_id, "the channel is the same"
    assert after.funding_txid == result.txid
    with trio.fail_after(PATIENCE_S):
        while not (taken := [coin for coin in (await chest.funds()).coins if coin.outpoint.startswith(result.txid)]):
            await trio.sleep(0.1)
    assert [coin.amount_msat for coin in taken] == [20_000_000]


async def test_a_channel_is_spliced_once_however_often_it_is_asked_for(chest: Chest) -> None:
    order = await chest.splice()
    await chest.lose("spliceout")
    with pytest.raises(OutcomeUnknown):
        await chest.payer.splice_out(order)
    first = await spliced(chest, order)
    assert first.txid is not None
    assert await chest.payer.splice_out(order) == first
    await chest.mine()
    await chest.splice()
    assert await chest.payer.splice_out(order) == first, "also when it is confirmed"


async def test_more_than_the_channel_has_is_not_taken_and_one_that_is_gone_has_nothing(chest: Chest) -> None:
    order = await chest.splice()
    for wrong in (SpliceOrder(order.channel_id, order.funding_txid, 10_000_000), SpliceOrder("00" * 32, order.funding_txid, 20_000)):
        result = await chest.payer.splice_out(wrong)
        assert result.txid is None
        assert result.reason
    with trio.fail_after(PATIENCE_S):  # after a splice that it cannot do, lightningd hangs up and connects again
        while (result := await spliced(chest, order)).reason == "its peer is away":
            await trio.sleep(0.1)
    assert result.txid is not None


async def prepared(chest: Chest, **changes: object) -> tuple[Prepared, tuple[str, ...], Digest]:
    """A withdrawal that is not sent, its coins and its id."""
    order = await chest.withdrawal(**changes)
    made = await chest.payer.prepare_withdrawal(order)
    assert made.txid is not None, made.reason
    return made, order.coins, made.txid


async def test_what_is_prepared_moves_nothing_until_it_is_sent_and_then_once(chest: Chest) -> None:
    made, coins, txid = await prepared(chest)
    await chest.mine()
    assert await chest.received() == 0
    result = SentResult(txid)
    assert await chest.payer.send_withdrawal(txid, made.psbt, coins) == result
    assert await chest.payer.send_withdrawal(txid, made.psbt, coins) == result
    await chest.mine()
    await chest.until_received(SENT_SAT)
    assert await chest.payer.send_withdrawal(txid, made.psbt, coins) == result
    await chest.mine()
    assert await chest.received() == SENT_SAT


async def test_a_lost_reply_to_sending_is_unknown_and_the_next_call_finds_out(chest: Chest) -> None:
    made, coins, txid = await prepared(chest)
    await chest.lose("sendpsbt")
    with pytest.raises(OutcomeUnknown):
        await chest.payer.send_withdrawal(txid, made.psbt, coins)
    assert await chest.payer.send_withdrawal(txid, made.psbt, coins) == SentResult(txid)
    await chest.mine()
    await chest.until_received(SENT_SAT)


async def test_a_node_that_was_killed_still_sends_what_it_signed(chest: Chest) -> None:
    made, coins, txid = await prepared(chest)
    await chest.crash("payer")
    with pytest.raises((Unavailable, OutcomeUnknown)):
        await chest.payer.send_withdrawal(txid, made.psbt, coins)
    await chest.start("payer")
    assert await chest.payer.send_withdrawal(txid, made.psbt, coins) == SentResult(txid)
    await chest.mine()
    await chest.until_received(SENT_SAT)


async def test_a_lost_reply_to_preparing_keeps_the_coins_for_72_blocks(chest: Chest) -> None:
    order = await chest.withdrawal()
    await chest.lose("txprepare")
    with pytest.raises(OutcomeUnknown):
        await chest.payer.prepare_withdrawal(order)
    with pytest.raises(Unavailable, match="already reserved"):
        await chest.payer.prepare_withdrawal(order)
    await chest.mine(RESERVED_BLOCKS + 1)
    made = await chest.payer.prepare_withdrawal(order)
    assert made.txid is not None
    assert (await chest.payer.send_withdrawal(made.txid, made.psbt, order.coins)).txid == made.txid


async def test_a_withdrawal_older_than_its_reservation_is_still_sent(chest: Chest) -> None:
    made, coins, txid = await prepared(chest)
    await chest.mine(RESERVED_BLOCKS + 1)
    with trio.fail_after(PATIENCE_S):
        while True:
            try:
                result = await chest.payer.send_withdrawal(txid, made.psbt, coins)
                break
            except Unavailable:
                await trio.sleep(0.1)
    assert result == SentResult(txid)


async def test_coins_that_another_transaction_has_spent_are_lost_for_the_first(chest: Chest) -> None:
    made, coins, txid = await prepared(chest)
    await chest.mine(RESERVED_BLOCKS + 1)
    again = await chest.payer.prepare_withdrawal(await chest.withdrawal(coins=coins, amount_sat=SENT_SAT // 2))
    assert again.txid is not None
    assert (await chest.payer.send_withdrawal(again.txid, again.psbt, coins)).txid == again.txid
    result = await chest.payer.send_withdrawal(txid, made.psbt, coins)
    assert result.txid is None
    assert "spent otherwise" in result.reason


async def test_what_cannot_be_made_is_said_and_the_coins_stay_free(chest: Chest) -> None:
    order = await chest.withdrawal()
    for changes in ({"amount_sat": 100_000_000}, {"coins": ("ee" * 32 + ":0",)}):
        made = await chest.payer.prepare_withdrawal(await chest.withdrawal(**changes))
        assert made.txid is None
        assert made.reason
    assert (await chest.payer.prepare_withdrawal(order)).txid is not None
