"""The simnet beside lightningd: one call on both. The same error code, or results whose fields lightningd has too, of the same types.

The simnet may leave things out; it may not do, or show, what lightningd does not.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import pytest

from tests.regtest.networks import Failure, NetworkProcess, ask

pytestmark = pytest.mark.regtest
AMOUNT = 10_000_000
TOO_MUCH = 5_000_000_000
DELAY = 24
NOBODY = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
ZERO = "00" * 32
LABELS = itertools.count()
HOP = ("id", "channel", "delay")
ABSENT = object()
"""A parameter that is left out."""


class Pair:
    """Both networks; a value that differs between them is a list of two."""

    def __init__(self, simulated: NetworkProcess, real: NetworkProcess) -> None:
        self.networks = (simulated, real)

    async def ask(self, node: str, method: str, /, **params: object) -> list[Any]:
        """The two answers, which must agree."""
        answers = [
            await ask(network.socket(node), method, {name: picked(value, index) for name, value in params.items()})
            for index, network in enumerate(self.networks)
        ]
        problems = list(differences(*answers))
        assert not problems, (method, params, problems, answers)
        return answers

    async def invoice(self, amount: int = AMOUNT, **more: object) -> dict[str, list[Any]]:
        """A new invoice of the payee on both."""
        made = await self.ask("payee", "invoice", amount_msat=amount, label=f"invoice-{next(LABELS)}", description="", **more)
        return {name: [answer[name] for answer in made] for name in ("bolt11", "payment_hash", "payment_secret")}

    async def sendpay(self, invoice: Mapping[str, list[Any]], amount: int = AMOUNT, **more: object) -> list[Any]:
        """Pay it over the channel; `more` replaces parameters, or members of the hop."""
        ids = [answer["id"] for answer in await self.ask("payee", "getinfo")]
        channels = [answer["channels"][0] for answer in await self.ask("payer", "listpeerchannels", id=ids)]
        routes = [
            [
                {"id": one, "channel": channel["short_channel_id"], "amount_msat": amount, "delay": DELAY}
                | {name: value for name, value in more.items() if name in HOP}
            ]
            for one, channel in zip(ids, channels, strict=True)
        ]
        params = {"route": routes, "amount_msat": amount, "partid": 0, "groupid": 1, **invoice}
        params |= {name: value for name, value in more.items() if name not in HOP}
        return await self.ask("payer", "sendpay", **{name: value for name, value in params.items() if value is not ABSENT})

    async def ended(self, invoice: Mapping[str, list[Any]], **more: object) -> list[Any]:
        """How the part ended, and what the table says of it."""
        payment_hash = invoice["payment_hash"]
        answers = await self.ask("payer", "waitsendpay", payment_hash=payment_hash, timeout=5, **more)
        await self.ask("payer", "listsendpays", payment_hash=payment_hash)
        return answers


def picked(value: Any, index: int) -> Any:
    """What one of the networks is given."""
    return value[index] if isinstance(value, list) else value


def differences(simulated: Any, real: Any, path: str = "") -> list[str]:
    """Where the simnet's answer is not one of lightningd's."""
    if isinstance(simulated, Failure) or isinstance(real, Failure):
        if type(simulated) is not type(real) or simulated.code != real.code:
            return [f"{path}: {simulated} is not {real}"]
        # lightningd tells a payment's state as it was before it failed, or after: both happen.
        return differences({name: value for name, value in simulated.data.items() if name not in TOLD_LATER}, real.data, f"{path}.data")
    if isinstance(simulated, dict) and isinstance(real, dict):
        missing = [f"{path}.{name}: not lightningd's" for name in simulated if name not in real]
        return missing + [
            problem for name in simulated if name in real for problem in differences(simulated[name], real[name], f"{path}.{name}")
        ]
    if isinstance(simulated, list) and isinstance(real, list):
        pairs = zip(simulated, real, strict=False)
        return [problem for index, (one, other) in enumerate(pairs) for problem in differences(one, other, f"{path}[{index}]")]
    return [] if type(simulated) is type(real) else [f"{path}: {simulated!r} is not of the type of {real!r}"]


TOLD_LATER = frozenset({"updated_index", "completed_at"})


@pytest.fixture
def pair(simulated: NetworkProcess, real: NetworkProcess) -> Pair:
    return Pair(simulated, real)


@pytest.mark.parametrize(
    ("node", "method", "params"),
    [
        ("payer", "getinfo", {}),
        ("payer", "listpeerchannels", {}),
        ("payer", "listpeerchannels", {"id": NOBODY}),
        ("payer", "listfunds", {}),
        ("payer", "nosuch", {}),
        ("payer", "waitblockheight", {"blockheight": 1}),
        ("payer", "waitblockheight", {"blockheight": 9_999_999, "timeout": 1}),
        ("payee", "invoice", {"amount_msat": 0, "label": "none", "description": ""}),
        ("payee", "invoice", {"amount_msat": "x", "label": "none", "description": ""}),
        ("payee", "invoice", {"label": "none", "description": ""}),
        ("payee", "invoice", {"amount_msat": 1, "label": "none", "description": "", "unknown": 1}),
        ("payee", "invoice", {"amount_msat": 1, "label": "x" * 129, "description": ""}),
        ("payee", "listinvoices", {"label": "none"}),
        ("payee", "listinvoices", {"label": "none", "payment_hash": ZERO}),
        ("payee", "waitanyinvoice", {"lastpay_index": 999_999, "timeout": 0}),
        ("payee", "waitanyinvoice", {"lastpay_index": 999_999, "timeout": 1}),
        ("payee", "waitanyinvoice", {"lastpay_index": "x", "timeout": 0}),
        ("payee", "delinvoice", {"label": "none", "status": "paid"}),
        ("payee", "decode", {"string": "nonsense"}),
        ("payee", "signinvoice", {"invstring": "nonsense"}),
        ("payer", "listsendpays", {"payment_hash": ZERO}),
        ("payer", "listsendpays", {"payment_hash": "nonsense"}),
        ("payer", "listsendpays", {"status": "nonsense"}),
        ("payer", "waitsendpay", {"payment_hash": ZERO}),
        ("payer", "xpay", {"invstring": "nonsense"}),
        ("payer", "wait", {"subsystem": "sendpays", "indexname": "created", "nextvalue": 0}),
        ("payer", "wait", {"subsystem": "invoices", "indexname": "updated", "nextvalue": 0}),
        ("payer", "wait", {"subsystem": "nonsense", "indexname": "updated", "nextvalue": 0}),
        ("payer", "wait", {"subsystem": "invoices", "indexname": "nonsense", "nextvalue": 0}),
    ],
)
async def test_what_changes_nothing(pair: Pair, node: str, method: str, params: dict[str, object]) -> None:
    await pair.ask(node, method, **params)


async def test_an_invoice_from_its_making_to_its_end(pair: Pair) -> None:
    made = await pair.ask("payee", "invoice", amount_msat=AMOUNT, label="whole life", description="d", expiry=3600)
    await pair.ask("payee", "invoice", amount_msat=AMOUNT, label="whole life", description="d")
    await pair.ask("payee", "decode", string=[answer["bolt11"] for answer in made])
    paid = await pair.ask("payer", "xpay", invstring=[answer["bolt11"] for answer in made])
    assert all("payment_preimage" in answer for answer in paid)
    twice = await pair.ask("payer", "xpay", invstring=[answer["bolt11"] for answer in made])
    assert all(isinstance(answer, Failure) for answer in twice)
    listed = await pair.ask("payee", "listinvoices", label="whole life")
    before = [answer["invoices"][0]["pay_index"] - 1 for answer in listed]
    await pair.ask("payee", "waitanyinvoice", lastpay_index=before, timeout=0)
    await pair.ask("payee", "waitanyinvoice", lastpay_index=before)
    await pair.ask("payee", "delinvoice", label="whole life", status="unpaid")
    await pair.ask("payee", "delinvoice", label="whole life", status="paid")


async def test_a_part_may_be_sent_once(pair: Pair) -> None:
    invoice = await pair.invoice()
    await pair.sendpay(invoice)
    assert all(answer["status"] == "complete" for answer in await pair.ended(invoice))
    await pair.sendpay(invoice)
    await pair.sendpay(invoice, AMOUNT + 1)
    await pair.sendpay(invoice, groupid=2)
    await pair.sendpay(invoice, partid=1)


@pytest.mark.parametrize(
    ("amount", "changes"),
    [
        (AMOUNT, {"payment_secret": "11" * 32}),
        (AMOUNT, {"payment_secret": ABSENT}),
        (AMOUNT, {"payment_secret": None}),
        (AMOUNT - 1, {}),
        (AMOUNT, {"delay": 3}),
        (AMOUNT, {"delay": 3_000}),
        (TOO_MUCH, {}),
        (AMOUNT, {"channel": "9x9x9"}),
        (AMOUNT, {"id": NOBODY}),
        (AMOUNT, {"route": [[], []]}),
        (AMOUNT, {"amount_msat": 5}),
        (AMOUNT, {"partid": 1, "payment_secret": ABSENT}),
        (AMOUNT, {"partid": 1, "amount_msat": ABSENT}),
    ],
)
async def test_a_part_that_is_wrong(pair: Pair, amount: int, changes: dict[str, object]) -> None:
    invoice = await pair.invoice()
    sent = await pair.sendpay(invoice, amount, **changes)
    if not isinstance(sent[0], Failure):
        await pair.ended(invoice)
        await pair.sendpay(invoice, amount, **changes)


async def test_parts_wait_for_each_other_and_nothing_else_may_go_meanwhile(pair: Pair) -> None:
    invoice = await pair.invoice()
    await pair.sendpay(invoice, AMOUNT // 2, partid=1, amount_msat=AMOUNT)
    await pair.sendpay(invoice, AMOUNT // 2, partid=1, amount_msat=AMOUNT)
    await pair.sendpay(invoice)
    await pair.sendpay(invoice, groupid=2)
    await pair.ask("payer", "xpay", invstring=invoice["bolt11"], retry_for=2)
    await pair.ask("payer", "waitsendpay", payment_hash=invoice["payment_hash"], partid=1, timeout=1)
    await pair.sendpay(invoice, AMOUNT // 2, partid=2, amount_msat=AMOUNT)
    for part in (1, 2):
        assert all(answer["status"] == "complete" for answer in await pair.ended(invoice, partid=part))
    await pair.sendpay(invoice, AMOUNT // 2, partid=3, amount_msat=AMOUNT)


@pytest.mark.parametrize("amount", [TOO_MUCH])
async def test_xpay_of_what_cannot_be_paid(pair: Pair, amount: int) -> None:
    invoice = await pair.invoice(amount)
    await pair.ask("payer", "xpay", invstring=invoice["bolt11"], retry_for=2)
    await pair.ask("payer", "listsendpays", payment_hash=invoice["payment_hash"])


async def test_a_peer_that_is_away(pair: Pair) -> None:
    invoice = await pair.invoice()
    for network in pair.networks:
        await network.control("fault", kind="crash", node="payee")
    payee = [balances["payee"]["id"] for balances in [await network.balances() for network in pair.networks]]
    channels = [answer["channels"][0] for answer in await pair.ask("payer", "listpeerchannels", id=payee)]
    assert [channel["peer_connected"] for channel in channels] == [False, False]
    routes = [
        [{"id": one, "channel": channel["short_channel_id"], "amount_msat": AMOUNT, "delay": DELAY}]
        for one, channel in zip(payee, channels, strict=True)
    ]
    await pair.ask("payer", "sendpay", route=routes, amount_msat=AMOUNT, **invoice)
    await pair.ask("payer", "listsendpays", payment_hash=invoice["payment_hash"])
    await pair.ask("payer", "xpay", invstring=invoice["bolt11"], retry_for=2)
    for network in pair.networks:
        await network.control("fault", kind="start", node="payee")
    await pair.sendpay(invoice)
    assert all(answer["status"] == "complete" for answer in await pair.ended(invoice))
