"""The client on real nodes: ordinary invoices, ways through others, restarts, and what it is told of balances and networks."""

from __future__ import annotations

import itertools
import time
from typing import Any

import pytest
import trio

from nostrain.errors import ConfigError, OutcomeUnknown
from nostrain.lightning.client import ClnLightning, Issued
from nostrain.lightning.rpc import ClnRpc
from nostrain.ports.lightning import PayResult
from nostrain.units import Digest, Msat
from tests.regtest.networks import PATIENCE_S, NetworkProcess, ask
from tests.regtest.proxy import LossyProxy

pytestmark = pytest.mark.regtest
AMOUNT = Msat(1_000_000)
LABELS = itertools.count()
TRIES = 5
SENDPAYS = {"subsystem": "sendpays", "indexname": "updated"}


async def issue(network: NetworkProcess, name: str, amount: Msat = AMOUNT) -> Issued:
    return await ClnLightning(network.socket(name)).invoice(f"paying-{next(LABELS)}", amount, "", 3600)


async def pay(node: ClnLightning, made: Issued, amount: Msat = AMOUNT) -> PayResult:
    with trio.fail_after(PATIENCE_S):
        return await node.pay(made.bolt11, made.payment_hash, amount)


async def sent(network: NetworkProcess, name: str, payment_hash: Digest) -> list[dict[str, Any]]:
    return list((await ask(network.socket(name), "listsendpays", {"payment_hash": payment_hash}))["payments"])


async def test_a_neighbour_is_paid_with_one_part_and_only_once(real: NetworkProcess) -> None:
    payer, made = ClnLightning(real.socket("payer"), network="regtest"), await issue(real, "payee")
    before = await real.balances()
    first, second = await pay(payer, made), await pay(payer, made)
    assert first == second
    assert first.preimage is not None
    after = await real.balances()
    assert after["payer"]["balance_msat"] == before["payer"]["balance_msat"] - AMOUNT
    (part,) = await sent(real, "payer", made.payment_hash)
    assert (part["groupid"], part.get("partid", 0), part["label"]) == (1, 0, "nostrain")
    again = await ClnLightning(real.socket("payee")).invoice(f"paying-{next(LABELS) - 1}", AMOUNT, "", 3600)
    assert again == Issued(made.bolt11, made.payment_hash, True)


async def test_a_stranger_is_paid_through_the_hub(real: NetworkProcess) -> None:
    payee, made = ClnLightning(real.socket("payee")), await issue(real, "third")
    before = await real.balances()
    paid = await pay(payee, made)
    assert paid.preimage is not None
    assert await pay(payee, made) == paid
    after = await real.balances()
    gained = {name: after[name]["balance_msat"] - before[name]["balance_msat"] for name in after}
    assert gained["third"] == AMOUNT
    assert gained["payer"] == -AMOUNT - gained["payee"] > 0


async def test_what_the_payee_does_not_know_any_more_fails_for_good(real: NetworkProcess) -> None:
    made = await issue(real, "payee")
    await ask(real.socket("payee"), "delinvoice", {"label": f"paying-{next(LABELS) - 1}", "status": "unpaid"})
    for name, times in (("payer", 2), ("third", 1)):
        node = ClnLightning(real.socket(name))
        for _ in range(times):
            assert await pay(node, made) == PayResult(made.payment_hash, None)
        assert {part["status"] for part in await sent(real, name, made.payment_hash)} == {"failed"}


async def test_more_than_there_is_is_refused_on_either_way(real: NetworkProcess) -> None:
    amount = Msat(sum(real.funds.values()) + 1)
    for name, other in (("payer", "payee"), ("third", "payee")):
        made = await issue(real, other, amount)
        assert await pay(ClnLightning(real.socket(name)), made, amount) == PayResult(made.payment_hash, None)


@pytest.mark.parametrize(("name", "method"), [("payer", "sendpay"), ("third", "xpay")])
async def test_a_reply_that_was_lost_is_found_in_the_table(real: NetworkProcess, name: str, method: str) -> None:
    made = await issue(real, "payee")
    proxy = LossyProxy(real.folder / "lossy", real.socket(name))
    async with trio.open_nursery() as nursery:
        await nursery.start(proxy.serve)
        node = ClnLightning(proxy.path)
        proxy.lose[method] += 1
        with pytest.raises(OutcomeUnknown):
            await pay(node, made)
        assert (await pay(node, made)).preimage is not None
        nursery.cancel_scope.cancel()
    assert len(await sent(real, name, made.payment_hash)) == 1


async def test_a_payment_that_was_pending_at_a_restart_is_waited_for(real: NetworkProcess) -> None:
    """The payee holds the first part until the second comes: meanwhile both nodes are killed and started again."""
    made = await issue(real, "payee")
    payer, socket = ClnLightning(real.socket("payer")), real.socket("payer")
    before = (await real.balances())["payee"]["incoming_msat"]
    await send_part(real, made, 1)
    with trio.fail_after(PATIENCE_S):
        while (await real.balances())["payee"]["incoming_msat"] == before:
            await trio.lowlevel.checkpoint()
    for name in ("payer", "payee"):
        await real.control("fault", kind="crash", node=name)
        if name == "payer":
            with pytest.raises(OutcomeUnknown):
                await pay(payer, made)
        await real.control("fault", kind="start", node=name)
    results: list[PayResult] = []
    rpc = ClnRpc(socket)
    updated = (await rpc.call("wait", SENDPAYS | {"nextvalue": 0}, dict, timeout_s=PATIENCE_S))["updated"]

    async def join() -> None:
        results.append(await pay(payer, made))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(join)
        await send_part(real, made, 2)
    assert [result.preimage is not None for result in results] == [True]
    told = await rpc.call("wait", SENDPAYS | {"nextvalue": updated + 2}, dict, timeout_s=PATIENCE_S)
    assert told["updated"] == updated + 2


async def test_a_part_that_was_entered_and_never_sent_has_failed(real: NetworkProcess) -> None:
    """lightningd killed between its reply to sendpay and the commitment: the part is pending for ever, and no HTLC."""
    for _ in range(TRIES):
        made = await issue(real, "payee")
        await send_part(real, made, 1)
        await real.control("fault", kind="crash", node="payer")
        killed = time.time()
        while time.time() < killed + 2:
            await real.control("mine", blocks=1)  # some time passes: lightningd tells of payments in whole seconds
        await real.control("fault", kind="start", node="payer")
        channels = (await ask(real.socket("payer"), "listpeerchannels", {}))["channels"]
        (part,) = await sent(real, "payer", made.payment_hash)
        if part["status"] == "pending" and not any(htlc["payment_hash"] == made.payment_hash for one in channels for htlc in one["htlcs"]):
            break
    else:
        pytest.skip(f"lightningd was faster than kill -9, {TRIES} times")
    assert await pay(ClnLightning(real.socket("payer")), made) == PayResult(made.payment_hash, None)


async def send_part(network: NetworkProcess, made: Issued, partid: int) -> None:
    """Half of AMOUNT over the channel."""
    socket = network.socket("payer")
    invoice = await ask(socket, "decode", {"string": made.bolt11})
    channel = (await ask(socket, "listpeerchannels", {"id": invoice["payee"]}))["channels"][0]["short_channel_id"]
    hop = {"id": invoice["payee"], "channel": channel, "amount_msat": AMOUNT // 2, "delay": invoice["min_final_cltv_expiry"] + 1}
    terms = {"payment_hash": made.payment_hash, "payment_secret": invoice["payment_secret"], "amount_msat": AMOUNT}
    assert (await ask(socket, "sendpay", {"route": [hop], "partid": partid, "groupid": 1, **terms}))["status"] == "pending"


async def test_balances_are_those_of_the_channels(real: NetworkProcess) -> None:
    shown = (await real.balances())["payer"]  # which waits until no HTLC is being added or removed
    balances = await ClnLightning(real.socket("payer")).balances()
    assert (balances.spendable_msat, balances.receivable_msat) == (shown["spendable_msat"], shown["receivable_msat"])
    assert [(channel.connected, channel.state, channel.max_accepted_htlcs) for channel in balances.channels] == [
        (True, "CHANNELD_NORMAL", 30)
    ] * 2


async def test_a_node_on_another_network_is_refused(real: NetworkProcess) -> None:
    made = await issue(real, "payee")
    node = ClnLightning(real.socket("payer"), network="bitcoin")
    with pytest.raises(ConfigError, match="is on 'regtest'"):
        await pay(node, made)
    assert await sent(real, "payer", made.payment_hash) == []
