"""Both processes of the plugin, over their pipes, with a lightningd made of a script."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nostrain.holdplugin.plugin import FIRST, METHODS, STANDBY
from tests.holdplugin.hold_examples import AMOUNT, DEADLINE, HASH, HEIGHT, MIN_CLTV, PREIMAGE, call
from tests.holdplugin.scripted import Lightningd, Process
from tests.imports import imported_by

CONTINUE = {"result": "continue"}
RESOLVE = {"result": "resolve", "payment_key": PREIMAGE}
DETAILS = f"400f{AMOUNT:016x}"


@pytest.fixture
def lightningd() -> Iterator[Lightningd]:
    # The path of a socket has to be short.
    with tempfile.TemporaryDirectory(prefix="nh", dir="/tmp") as folder:
        lightningd = Lightningd(Path(folder))
        yield lightningd
        lightningd.close()


def pay(lightningd: Lightningd, process: Process, number: int = 0, **onion: Any) -> str:
    """Have the hook of `process` called with an HTLC that pays the invoice on HASH."""
    secret = lightningd.methods["decode"]({"string": listed(lightningd)["invoice"]})["payment_secret"]
    return process.send("htlc_accepted", call(number, payment_secret=secret, **onion))


def listed(lightningd: Lightningd) -> dict[str, Any]:
    """The one invoice."""
    (hold,) = lightningd.processes[FIRST].ask("listholdinvoices", payment_hash=HASH)["holdinvoices"]
    return dict(hold)


def held(lightningd: Lightningd) -> str:
    """The first process has an HTLC; the id of the call that has no reply."""
    first = lightningd.processes[FIRST]
    first.ask("holdinvoice", payment_hash=HASH, amount=AMOUNT)
    number = pay(lightningd, first)
    assert not first.has_replied(number)
    assert listed(lightningd)["state"] == "accepted"
    return number


def test_starts_quickly_and_without_what_it_does_not_need() -> None:
    loaded = imported_by("import nostrain.holdplugin.plugin")
    assert {"pyln", "sqlite3"} <= loaded
    assert not loaded & {"trio", "torch", "numpy", "msgspec", "pynostr", "nostr_sdk", "httpx"}


def test_the_manifests(lightningd: Lightningd) -> None:
    manifests = {}
    for name in (FIRST, STANDBY):
        process = lightningd.spawn(name)
        manifests[name] = process.ask("getmanifest", **{"allow-deprecated-apis": False})
        process.end()
    first, standby = manifests[FIRST], manifests[STANDBY]
    assert {method["name"] for method in first["rpcmethods"]} == set(METHODS)
    assert first["rpcmethods"][0]["usage"] == "payment_hash amount [description] [expiry] [min_final_cltv_expiry] [description_hash]"
    assert {option["name"]: option["default"] for option in first["options"]} == {"hold-expiry-deadline": 24, "hold-mpp-timeout": 60}
    # lightningd kills a plugin that brings a method or an option which another one has.
    assert not standby["rpcmethods"]
    assert not standby["options"]
    assert [hook["after"] for hook in first["hooks"]] == [[]]
    assert [hook["after"] for hook in standby["hooks"]] == [[FIRST]]
    assert first["dynamic"] is standby["dynamic"] is True


def test_what_is_not_ours_goes_on(lightningd: Lightningd) -> None:
    process = lightningd.start(FIRST)
    for params in (call(), call(short_channel_id="2x2x2"), {}, {"onion": 7, "htlc": []}, call() | {"htlc": {"id": "x"}}):
        assert process.ask("htlc_accepted", **params) == CONTINUE


def test_hold_and_settle(lightningd: Lightningd) -> None:
    process = lightningd.start(FIRST)
    number = held(lightningd)
    assert process.ask("settleholdinvoice", preimage=PREIMAGE) == {}
    assert process.reply(number)["result"] == RESOLVE
    hold = listed(lightningd)
    assert (hold["state"], hold["preimage"], hold["htlcs"][0]["state"]) == ("paid", PREIMAGE, "paid")
    assert set(hold) == {"id", "payment_hash", "preimage", "invoice", "state", "created_at", "settled_at", "htlcs"}
    assert set(hold["htlcs"][0]) == {"id", "invoice_id", "state", "scid", "channel_id", "msat", "cltv_expiry", "created_at"}
    # Handed over again, as after a crash of lightningd; and asked again, as by a daemon that crashed.
    assert process.reply(pay(lightningd, process))["result"] == RESOLVE
    assert process.ask("settleholdinvoice", preimage=PREIMAGE) == {}
    assert "paid is final" in process.refuses("cancelholdinvoice", payment_hash=HASH)
    # A second payment is not taken.
    assert process.reply(pay(lightningd, process, 1))["result"]["failure_message"].startswith(DETAILS)


def test_hold_and_cancel(lightningd: Lightningd) -> None:
    process = lightningd.start(FIRST)
    number = held(lightningd)
    assert process.ask("cancelholdinvoice", payment_hash=HASH) == {}
    assert process.reply(number)["result"] == {"result": "fail", "failure_message": f"{DETAILS}{HEIGHT:08x}"}
    assert process.reply(pay(lightningd, process))["result"]["result"] == "fail"
    assert "no HTLCs to settle" in process.refuses("settleholdinvoice", preimage=PREIMAGE)
    assert process.ask("cleanholdinvoices", age=3_600) == {"cleaned": 0}
    assert process.ask("cleanholdinvoices") == {"cleaned": 1}
    assert process.ask("listholdinvoices") == {"holdinvoices": []}


def test_what_the_methods_refuse(lightningd: Lightningd) -> None:
    process = lightningd.start(FIRST)
    for wrong in (
        {"payment_hash": "11" * 31, "amount": 1},
        {"payment_hash": HASH, "amount": 0},
        {"payment_hash": HASH, "amount": "many"},
        {"payment_hash": HASH, "amount": True},
        {"payment_hash": HASH, "amount": 1, "min_final_cltv_expiry": DEADLINE},
        {"payment_hash": HASH, "amount": 1, "description": "x" * 640},
        {"payment_hash": HASH, "amount": 1, "description": "x", "description_hash": HASH},
        {"payment_hash": HASH},
    ):
        assert process.refuses("holdinvoice", **wrong)
    lightningd.methods["listinvoices"] = lambda _: {"invoices": [{}]}
    assert "ordinary invoice" in process.refuses("holdinvoice", payment_hash=HASH, amount=1)
    lightningd.methods["listinvoices"] = lambda _: {"invoices": []}
    assert process.ask("listholdinvoices") == {"holdinvoices": []}
    bolt11 = process.ask("holdinvoice", payment_hash=HASH.upper(), amount=str(AMOUNT))["bolt11"]
    assert "UNIQUE" in process.refuses("injectholdinvoice", invoice=bolt11)
    assert "too many" in process.refuses("listholdinvoices", payment_hash=HASH, invoice=bolt11)
    assert len(process.ask("listholdinvoices", invoice=bolt11)["holdinvoices"]) == 1
    assert "not found" in process.refuses("cancelholdinvoice", payment_hash="00" * 32)
    assert "not found" in process.refuses("settleholdinvoice", preimage="00" * 32)
    process.ask("cancelholdinvoice", payment_hash=HASH)
    process.ask("cleanholdinvoices")
    lightningd.methods["getinfo"] = lambda _: {"id": "03" + "44" * 32, "blockheight": HEIGHT}
    assert "not related to us" in process.refuses("injectholdinvoice", invoice=bolt11, min_cltv=30)


def test_cancelled_24_blocks_before_the_expiry(lightningd: Lightningd) -> None:
    process = lightningd.start(FIRST)
    number = held(lightningd)
    last = HEIGHT + MIN_CLTV - DEADLINE
    process.notify("block_added", {"block_added": {"hash": "00" * 32, "height": last - 1}})
    assert not process.has_replied(number)
    process.notify("block_added", {"block_added": {"hash": "00" * 32, "height": last}})
    assert process.reply(number)["result"] == {"result": "fail", "failure_message": f"{DETAILS}{last:08x}"}
    assert listed(lightningd)["state"] == "cancelled"


def test_parts_time_out(lightningd: Lightningd) -> None:
    lightningd.options = {"hold-mpp-timeout": 1}
    process = lightningd.start(FIRST)
    process.ask("holdinvoice", payment_hash=HASH, amount=AMOUNT)
    secret = lightningd.methods["decode"]({"string": listed(lightningd)["invoice"]})["payment_secret"]
    number = process.send("htlc_accepted", call(0, AMOUNT // 2, payment_secret=secret))
    assert process.reply(number)["result"] == {"result": "fail", "failure_message": "0017"}


def test_the_other_process_takes_over(lightningd: Lightningd) -> None:
    """lightningd gives the calls of a process that died to the next one; the first one comes back, with the methods."""
    first = lightningd.start(FIRST)
    standby = lightningd.wait_for_start(STANDBY, 1)
    held(lightningd)
    secret = lightningd.methods["decode"]({"string": listed(lightningd)["invoice"]})["payment_secret"]
    first.kill()
    number = standby.send("htlc_accepted", call(payment_secret=secret))
    again = lightningd.wait_for_start(FIRST, 2)
    again.ask("settleholdinvoice", preimage=PREIMAGE)
    assert standby.reply(number)["result"] == RESOLVE
    standby.kill()
    lightningd.wait_for_start(STANDBY, 2)


def test_an_htlc_that_is_gone_with_both_processes_is_not_settled(lightningd: Lightningd) -> None:
    first = lightningd.start(FIRST)
    held(lightningd)
    lightningd.wait_for_start(STANDBY, 1).kill()
    lightningd.methods["plugin"] = lambda _: {}
    first.kill()
    again = lightningd.start(FIRST)
    assert "not handed them over" in again.refuses("settleholdinvoice", preimage=PREIMAGE)
    # lightningd still has it: it may be handed over again.
    number = pay(lightningd, again)
    again.ask("settleholdinvoice", preimage=PREIMAGE)
    assert again.reply(number)["result"] == RESOLVE


def test_one_that_was_told_to_go_stays_away(lightningd: Lightningd) -> None:
    first = lightningd.start(FIRST)
    standby = lightningd.wait_for_start(STANDBY, 1)
    standby.notify("shutdown", {})
    assert standby.wait() == 0
    first.kill()
    # Nobody was left to start it: had the first one started the standby again, that would have started the first one.
    assert lightningd.started == [FIRST, STANDBY]


def test_calls_that_come_before_init_wait(lightningd: Lightningd) -> None:
    process = lightningd.spawn(STANDBY)
    process.ask("getmanifest", **{"allow-deprecated-apis": False})
    number = process.send("htlc_accepted", call())
    lightningd.methods.pop("plugin")
    assert process.ask("init", options={}, configuration=lightningd.configuration) is None
    assert process.reply(number)["result"] == CONTINUE
    process.end()


@pytest.mark.parametrize("value", [0, "soon", -1])
def test_options_that_make_no_sense_disable_it(lightningd: Lightningd, value: object) -> None:
    lightningd.options = {"hold-expiry-deadline": value}
    process = lightningd.spawn(FIRST)
    reply = lightningd.init(process, FIRST)
    assert reply is not None
    assert "hold-expiry-deadline: a whole number" in reply["disable"]
    process.end()


def test_a_damaged_file_disables_it(lightningd: Lightningd) -> None:
    folder = lightningd.folder / "nostrain-hold"
    folder.mkdir()
    (folder / "hold.sqlite").write_bytes(b"not a database, " * 100)
    process = lightningd.spawn(FIRST)
    reply = lightningd.init(process, FIRST)
    assert reply is not None
    assert "not a database" in reply["disable"]
    process.end()


def test_the_same_process_twice_disables_the_second(lightningd: Lightningd) -> None:
    lightningd.start(FIRST)
    second = lightningd.spawn(FIRST)
    reply = lightningd.init(second, FIRST)
    assert reply is not None
    assert "runs already" in reply["disable"]
    second.end()
