"""The table of rights against the code: nothing is called that is not in it, and nothing is in it that is not called."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import nostrain.lightning
from nostrain.lightning.rights import AMOUNTS, RIGHTS, Use, restrictions

CALLS = {"call", "ask", "read"}
FOLDER = Path(nostrain.lightning.__file__).parent


def called(path: Path) -> Iterator[str]:
    """The methods of lightningd that a module names in a call of the client."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CALLS and node.args:
            first = node.args[0]
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield first.value


def test_the_table_has_every_method_that_is_called_and_no_other() -> None:
    assert {method for path in FOLDER.glob("*.py") for method in called(path)} == {row.method for row in RIGHTS}
    assert len({row.method for row in RIGHTS}) == len(RIGHTS)


def test_every_method_is_for_something_and_nothing_moves_coins_that_was_not_asked_for() -> None:
    assert all(row.uses for row in RIGHTS)
    assert not {"withdraw", "stop", "fundchannel", "close", "createrune", "spliceout", "txprepare", "sendpsbt"} & {
        rule.removeprefix("method=") for rule in restrictions(set(Use) - {Use.OPEN, Use.WITHDRAW})[0]
    }


def test_restrictions_are_the_methods_their_parameters_and_the_largest_payment() -> None:
    assert restrictions({Use.READ}) == [["method=getinfo", "method=waitblockheight", "method=listpeerchannels"]]
    rules = restrictions({Use.PAY}, max_payment_sat=100)
    assert ["method/sendpay", "pnamegroupid=1"] in rules
    assert ["method/sendpay", "pnameamount_msat<100001"] in rules
    assert ["method/xpay", "pinvinvstring_amount<100001"] in rules
    assert {rule.removeprefix("method=") for rule in rules[0]} >= set(AMOUNTS)
