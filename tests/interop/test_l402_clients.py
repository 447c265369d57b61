"""Other people's clients buy a blob from our server, unaided: bolt402 from PyPI in its own process, and curl with BUD-07 by hand.

The wallet that bolt402 asks for is Core Lightning behind its REST plugin; the simnet has no REST, so `Wallet` stands for that plugin: it
translates `/v1/pay` into a payment by worker-1's node.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from nostrain.http.server import serve
from nostrain.units import Msat
from nostrain.wire.bolt11 import parse_bolt11_untrusted
from tests.paid.conftest import SimnetProcess, simnet  # noqa: F401 - a fixture
from tests.paid.shop import Shop

TEXT = "weights, or so it is said\n" * 10
PATIENCE_S = 30
needs_bolt402 = pytest.mark.skipif(
    importlib.util.find_spec("bolt402") is None, reason="bolt402 is not installed (pip install bolt402==0.1.0): L402 was not tried with it"
)
needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not on PATH: BUD-07 was not tried with it")


class Wallet:
    """Core Lightning's REST, as far as a paying client needs it."""

    def __init__(self, network: SimnetProcess) -> None:
        self._node = network.lightning("worker-1")
        self.asked: list[str] = []

    async def pay(self, request: Request) -> Response:
        invoice = (await request.json())["bolt11"]
        self.asked.append(invoice)
        terms = parse_bolt11_untrusted(invoice)
        assert terms.amount_msat is not None
        result = await self._node.pay(invoice, terms.payment_hash, Msat(terms.amount_msat))
        answer = {"payment_preimage": result.preimage, "payment_hash": terms.payment_hash, "status": "complete"}
        return JSONResponse(answer | {"amount_msat": terms.amount_msat, "amount_sent_msat": terms.amount_msat}, 201)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[str]:
        async with trio.open_nursery() as nursery:
            yield await nursery.start(serve, Starlette(routes=[Route("/v1/pay", self.pay, methods=["POST"])]), "127.0.0.1:0")
            nursery.cancel_scope.cancel()


async def run(*command: str) -> str:
    """What the process printed; it has to end well."""
    with trio.fail_after(PATIENCE_S):
        done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


@needs_bolt402
async def test_bolt402_buys_a_blob(simnet: SimnetProcess, tmp_path: Path) -> None:  # noqa: F811
    shop, wallet = Shop(simnet, tmp_path), Wallet(simnet)
    async with shop.open(), wallet.open() as rest:
        digest = await shop.stock(TEXT.encode())
        buyer = Path(__file__).with_name("bolt402_buyer.py")
        found = json.loads(await run(sys.executable, "-P", str(buyer), rest, f"{shop.url}/{digest}"))
        assert found == {"status": 200, "text": TEXT, "paid": True, "amount_sats": 2, "spent": 2}
        assert len(wallet.asked) == 1
        assert await shop.spent() == 2000


@needs_curl
async def test_curl_pays_by_bud_07_and_by_l402(simnet: SimnetProcess, tmp_path: Path) -> None:  # noqa: F811
    shop = Shop(simnet, tmp_path)
    async with shop.open():
        digest = await shop.stock(TEXT.encode())
        url = f"{shop.url}/{digest}"
        for scheme in ("X-Lightning", "LSAT"):
            head = await run("curl", "-sS", "-D", "-", "-o", str(tmp_path / "refused"), url)
            assert head.startswith("HTTP/1.1 402 ")
            headers = dict(line.split(": ", 1) for line in reversed(head.split("\r\n")[1:]) if ": " in line)
            terms = parse_bolt11_untrusted(headers["x-lightning"])
            assert terms.amount_msat is not None
            paid = await simnet.lightning("worker-1").pay(headers["x-lightning"], terms.payment_hash, Msat(terms.amount_msat))
            macaroon = headers["www-authenticate"].partition('macaroon="')[2].partition('"')[0]
            shown = f"X-Lightning: {paid.preimage}" if scheme == "X-Lightning" else f"Authorization: LSAT {macaroon}:{paid.preimage}"
            assert await run("curl", "-sS", "-f", "-H", shown, url) == TEXT
            assert await run("curl", "-sS", "-o", str(tmp_path / "again"), "-w", "%{http_code}", "-H", shown, url) == "409"
        assert await shop.spent() == 4000
