"""Plugin, simnet and client agree: what the simnet's plugin is called and answers, ours is called and answers too."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any

import msgspec

from nostrain.devnet.simnet import hold as simulated
from nostrain.devnet.simnet.nodes import Hold, HoldHtlc, Network, Node
from nostrain.holdplugin import invoices, methods
from nostrain.holdplugin.store import Row
from nostrain.lightning.replies import HeldInvoice
from tests.holdplugin.hold_examples import AMOUNT, DEADLINE, HASH, HEIGHT, NOW, PREIMAGE, SECRET, invoice, offer


def test_every_method_and_parameter_of_the_simnet_is_ours() -> None:
    table = simulated.HoldMethods(Network.__new__(Network), Node.__new__(Node)).table()
    for name, method in table.items():
        ours = list(inspect.signature(getattr(methods.Methods, name)).parameters.values())[1:]
        theirs = msgspec.structs.fields(method.params)
        assert [parameter.name for parameter in ours][: len(theirs)] == [field.name for field in theirs], name
        for parameter, field in zip(ours, theirs, strict=False):
            assert (parameter.default is inspect.Parameter.empty) == field.required, (name, field.name)


def test_both_list_an_invoice_alike_and_the_client_reads_it() -> None:
    accepted = invoices.receive(invoice(), offer(), DEADLINE, NOW)
    paid = invoices.settle(accepted, PREIMAGE, HEIGHT, DEADLINE)
    for held, settled_at in ((accepted, None), (paid, NOW)):
        ours = methods.listed(Row(1, "lnbcrt…", None, NOW, settled_at, held, (1,)))
        theirs = simulated.listed(in_the_simnet(held, settled_at))
        assert ours == theirs
        assert msgspec.convert(ours, HeldInvoice).state == held.state.value


def in_the_simnet(held: invoices.Invoice, settled_at: int | None) -> Hold:
    """The same invoice in the simnet's table."""
    channel: Any = SimpleNamespace(short_channel_id="1x1x1")
    htlcs: list[Any] = [
        HoldHtlc(
            1, htlc.state.value, SimpleNamespace(channel=channel, id=htlc.key.number, amount_msat=AMOUNT, cltv_expiry=htlc.cltv_expiry), NOW
        )  # type: ignore[arg-type]
        for htlc in held.htlcs
    ]
    return Hold(
        id=1,
        payment_hash=HASH,
        bolt11="lnbcrt…",
        amount_msat=AMOUNT,
        payment_secret=SECRET,
        min_cltv=80,
        created_at=NOW,
        state=held.state.value,
        preimage=held.preimage,
        settled_at=settled_at,
        htlcs=htlcs,
    )
