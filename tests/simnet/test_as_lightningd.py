"""What lightningd 26.06 was seen to do where the simnet once did something else; `tests/regtest/test_differential.py` compares the two."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from tests.simnet.conftest import Failed, World

AMOUNT = 1_000_000


async def invoice(world: World, node: str = "w", **more: object) -> dict[str, Any]:
    made = await world.ask(
        node, "invoice", amount_msat=AMOUNT, label=f"label-{len(world.network.nodes[node].invoices)}", description="", **more
    )
    return dict(await world.ask(node, "decode", string=made["bolt11"]) | {"bolt11": made["bolt11"]})


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("listinvoices", {"label": "a", "payment_hash": "00" * 32}),
        ("listsendpays", {"payment_hash": "nonsense"}),
        ("listsendpays", {"status": "nonsense"}),
        ("wait", {"subsystem": "nonsense", "indexname": "created", "nextvalue": 0}),
        ("wait", {"subsystem": "invoices", "indexname": "nonsense", "nextvalue": 0}),
        ("listinvoices", {"label": None}),
    ],
)
async def test_parameters_that_it_refuses(world: World, method: str, params: dict[str, object]) -> None:
    with pytest.raises(Failed) as failed:
        await world.ask("c", method, **params)
    assert failed.value.code == -32602


async def test_only_a_connected_channel_says_that_it_is_reestablished(world: World) -> None:
    await world.ask("simnet", "simnet-fault", kind="crash", node="w")
    channels = (await world.ask("c", "listpeerchannels"))["channels"]
    assert [(channel["peer_connected"], channel.get("reestablished")) for channel in channels] == [(False, None), (True, True)]


async def test_its_own_htlc_may_live_as_long_as_it_likes_but_no_other_node_forwards_it(world: World) -> None:
    mine = await invoice(world)
    await world.send("c", mine | {"min_final_cltv_expiry": 3_000})
    assert (await world.wait("c", mine))["status"] == "complete"
    far = await invoice(world, "v", cltv=2_100)
    with pytest.raises(Failed, match="EXPIRY_TOO_FAR".lower()) as failed:
        await world.ask("w", "xpay", invstring=far["bolt11"])
    assert failed.value.code == 209


async def test_a_payment_without_secret_is_for_the_payee_to_refuse(world: World) -> None:
    wanted = await invoice(world)
    await world.send("c", wanted | {"payment_secret": ""})
    with pytest.raises(Failed, match="WIRE_INCORRECT_OR_UNKNOWN_PAYMENT_DETAILS") as failed:
        await world.wait("c", wanted)
    assert failed.value.code == 203
    payee, payer = wanted["payee"], (await world.ask("c", "getinfo"))["id"]
    where = {"erring_index": 1, "erring_node": payee, "erring_channel": "100x1x0", "erring_direction": int(payer > payee)}
    assert {name: failed.value.data[name] for name in where} == where
    (listed,) = (await world.ask("c", "listsendpays", payment_hash=wanted["payment_hash"]))["payments"]
    assert listed["completed_at"] >= listed["created_at"]


async def test_what_the_node_itself_refuses_is_at_its_own_end(world: World) -> None:
    wanted = await invoice(world)
    payer = (await world.ask("c", "getinfo"))["id"]
    with pytest.raises(Failed, match="No connection to first peer") as nowhere:
        await world.ask(
            "c", "sendpay", route=[{"id": wanted["payee"], "channel": "9x9x9", "amount_msat": AMOUNT, "delay": 18}], payment_hash="00" * 32
        )
    assert nowhere.value.data == {"erring_index": 0, "failcode": 0x400A, "failcodename": "WIRE_UNKNOWN_NEXT_PEER", "erring_node": payer}
    await world.ask("simnet", "simnet-fault", kind="crash", node="w")
    with pytest.raises(Failed, match="First peer not ready") as away:
        await world.send("c", wanted)
    assert (away.value.data["failcodename"], away.value.data["erring_channel"]) == ("WIRE_TEMPORARY_CHANNEL_FAILURE", "100x1x0")
    with pytest.raises(Failed, match="Unknown invoice") as self_payment:
        await world.ask("c", "sendpay", route=[], payment_hash="00" * 32, amount_msat=AMOUNT)
    assert self_payment.value.code == 203


async def test_wait_returns_what_there_is_or_the_change_that_made_it_so(world: World) -> None:
    where = {"subsystem": "sendpays", "indexname": "updated"}
    assert await world.ask("c", "wait", **where, nextvalue=0) == {"subsystem": "sendpays", "updated": 0}
    told: list[Any] = []
    wanted = await invoice(world)

    async def wait(node: str, subsystem: str) -> None:
        told.append(await world.ask(node, "wait", subsystem=subsystem, indexname="updated", nextvalue=1))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, "c", "sendpays")
        nursery.start_soon(wait, "w", "invoices")
        await trio.testing.wait_all_tasks_blocked()
        sent = await world.send("c", wanted, groupid=1)
    assert "updated_index" not in sent
    payment = {"status": "complete", "partid": 0, "groupid": 1, "payment_hash": wanted["payment_hash"]}
    assert sorted(told, key=str) == [
        {"subsystem": "invoices", "invoices": {"label": "label-0", "status": "paid"}, "updated": 1},
        {"subsystem": "sendpays", "sendpays": payment, "updated": 1},
    ]
    (paid,) = (await world.ask("w", "listinvoices", label="label-0"))["invoices"]
    assert paid["updated_index"] == 1


async def test_a_label_that_was_freed_gets_a_new_index(world: World) -> None:
    await invoice(world)
    await world.ask("w", "delinvoice", label="label-0", status="unpaid")
    await invoice(world)
    (again,) = (await world.ask("w", "listinvoices", label="label-0"))["invoices"]
    assert again["created_index"] == 2


async def test_a_wallet_knows_of_other_nodes_transactions_only_when_a_block_has_them(world: World) -> None:
    """And its own at once; the coin that is spent stays listed, reserved, until then."""
    address = (await world.ask("w", "newaddr"))["p2tr"]
    (coin,) = (await world.ask("c", "listfunds"))["outputs"]
    made = await world.ask("c", "txprepare", outputs=[{address: "30000sat"}], utxos=[f"{coin['txid']}:{coin['output']}"])
    await world.ask("c", "sendpsbt", psbt=made["psbt"])
    assert (await world.ask("w", "listfunds"))["outputs"] == []
    assert (await world.ask("w", "listtransactions"))["transactions"] == []
    listed = (await world.ask("c", "listfunds"))["outputs"]
    assert [(output["status"], output["reserved"]) for output in listed] == [("confirmed", True), ("unconfirmed", False)]
    await world.ask("simnet", "simnet-mine")
    assert [output["amount_msat"] for output in (await world.ask("w", "listfunds"))["outputs"]] == [30_000_000]
    assert len((await world.ask("c", "listfunds"))["outputs"]) == 1


async def test_what_openings_and_splices_are_refused_with(world: World) -> None:
    peer, channel = (await world.ask("w", "getinfo"))["id"], (await world.ask("w", "listpeerchannels"))["channels"][0]
    address = (await world.ask("c", "newaddr"))["p2tr"]
    for code, method, params in (
        (306, "fundchannel_cancel", {"id": "02" * 33}),
        (308, "fundchannel_cancel", {"id": peer}),
        (400, "connect", {"id": "02" * 33}),
        (-32602, "fundchannel", {"id": peer, "amount": 200}),
        (301, "fundchannel", {"id": peer, "amount": 5_000_000}),
        (-32602, "spliceout", {"channel": channel["channel_id"], "amount": "10000sat", "destination": address}),
        (-32602, "spliceout", {"channel": channel["channel_id"], "amount": "9000000sat"}),
    ):
        with pytest.raises(Failed) as failed:
            await world.ask("c", method, **params)
        assert failed.value.code == code, method
