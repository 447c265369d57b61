"""A blob server with a price list, and our own client: real HTTP, both ways to pay, money of the simnet."""

from __future__ import annotations

import contextlib
from pathlib import Path

import httpx
import pytest
import trio

from nostrain.blobs.auth import make_header
from nostrain.errors import RemoteProtocolError, Unavailable
from nostrain.hashes import sha256_hex
from nostrain.http.rates import Rates
from nostrain.keys.signer import NostrSigner
from nostrain.keys.store import RootSecret
from nostrain.units import Digest, Msat
from tests.paid.conftest import SimnetProcess
from tests.paid.shop import DATA, DIGEST, DOWNLOAD, UPLOAD, Shop


async def test_our_client_buys_a_blob_and_each_purchase_is_good_once(simnet: SimnetProcess, tmp_path: Path) -> None:
    shop = Shop(simnet, tmp_path)
    async with shop.open():
        await shop.stock()
        assert await shop.fetch() == DATA
        assert await shop.spent() == DOWNLOAD
        assert await shop.fetch() == DATA
        assert await shop.spent() == 2 * DOWNLOAD
        assert list((tmp_path / "tolls").iterdir()) == []


@pytest.mark.parametrize("without", [b"", b"www-authenticate", b"x-lightning"], ids=["both", "BUD-07", "L402"])
async def test_our_client_pays_for_an_upload_in_either_way(simnet: SimnetProcess, tmp_path: Path, without: bytes) -> None:
    shop = Shop(simnet, tmp_path)
    async with shop.open(without=without):
        with pytest.raises(RemoteProtocolError, match="the most that we pay"):
            await shop.send(Msat(UPLOAD - 1))
        assert await shop.spent() == 0
        await shop.send()
        assert await shop.spent() == UPLOAD
        path = shop.store.path(DIGEST)
        assert path is not None
        assert path.read_bytes() == DATA
        assert list((tmp_path / "tolls").iterdir()) == []


@pytest.mark.parametrize("without", [b"www-authenticate", b"x-lightning"], ids=["BUD-07", "L402"])
async def test_what_was_paid_for_before_a_restart_of_both_is_used_after_it(simnet: SimnetProcess, tmp_path: Path, without: bytes) -> None:
    shop = Shop(simnet, tmp_path)
    async with shop.open(without=without):
        await simnet.control("fault", kind="lose-reply", node="worker-1", method="sendpay", count=1)
        with pytest.raises(Unavailable):
            await shop.send()
    async with shop.open(without=without):
        await shop.send()
        assert await shop.spent() == UPLOAD


async def test_nothing_is_paid_above_the_ceiling(simnet: SimnetProcess, tmp_path: Path) -> None:
    shop = Shop(simnet, tmp_path)
    async with shop.open():
        await shop.stock()
        with pytest.raises(RemoteProtocolError, match="the most that we pay"):
            await shop.fetch(Msat(DOWNLOAD - 1))
        assert await shop.spent() == 0


async def test_a_lost_reply_to_the_payment_is_asked_for_and_not_paid_again(simnet: SimnetProcess, tmp_path: Path) -> None:
    shop = Shop(simnet, tmp_path)
    async with shop.open():
        await shop.stock()
        await simnet.control("fault", kind="lose-reply", node="worker-1", method="sendpay", count=1)
        assert await shop.fetch(attempts=2) == DATA, "asked for when the same source comes up again"
        assert await shop.spent() == DOWNLOAD


async def test_l402_and_bud_07_by_hand(simnet: SimnetProcess, tmp_path: Path) -> None:
    shop = Shop(simnet, tmp_path)
    async with shop.open(), httpx.AsyncClient(trust_env=False) as http:
        await shop.stock()
        url = f"{shop.url}/{DIGEST}"
        preview = await http.head(url)
        token, preimage = await shop.pay(preview)
        assert (await http.get(f"{shop.url}/{'0' * 64}", headers={"Authorization": token})).status_code == 404
        assert (await http.get(url, headers={"Authorization": token})).content == DATA
        assert (await http.get(url, headers={"X-Lightning": preimage})).status_code == 409
        _, preimage = await shop.pay(await http.get(url))
        half = await http.get(url, headers={"X-Lightning": preimage, "Range": f"bytes=0-{len(DATA) // 2 - 1}"})
        rest = await http.get(url, headers={"X-Lightning": preimage, "Range": f"bytes={len(DATA) // 2}-"})
        assert half.content + rest.content == DATA
        assert half.headers["cache-control"].startswith("private")
        assert (await http.get(url, headers={"X-Lightning": preimage, "Range": "bytes=0-0"})).status_code == 409
        _, preimage = await shop.pay(await http.get(f"{shop.url}/list/{'a' * 64}"))
        assert (await http.get(f"{shop.url}/list/{'a' * 64}", headers={"X-Lightning": preimage})).json() == []
        assert (await http.get(f"{shop.url}/list/{'a' * 64}", headers={"X-Lightning": preimage})).status_code == 409
        assert await shop.spent() == 2 * DOWNLOAD + 1000


async def test_a_download_that_broke_off_is_not_used_up(simnet: SimnetProcess, tmp_path: Path) -> None:
    shop = Shop(simnet, tmp_path)
    async with shop.open(), httpx.AsyncClient(trust_env=False) as http:
        await shop.stock()
        token, _ = await shop.pay(await http.get(f"{shop.url}/{DIGEST}"))
        stream = await trio.open_tcp_stream("127.0.0.1", int(shop.url.rpartition(":")[2]))
        async with stream:
            await stream.send_all(f"GET /{DIGEST} HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n\r\n".encode())
            assert (await stream.receive_some(12)) == b"HTTP/1.1 200"
        again = await http.get(f"{shop.url}/{DIGEST}", headers={"Authorization": token})
        assert again.content == DATA
        assert await shop.spent() == DOWNLOAD


async def test_an_upload_that_broke_off_is_not_used_up_and_a_whole_one_is(simnet: SimnetProcess, tmp_path: Path) -> None:
    shop, data = Shop(simnet, tmp_path), b"small" * 1000
    digest = Digest(sha256_hex(data))
    async with shop.open(), httpx.AsyncClient(trust_env=False) as http:
        signer, url = NostrSigner(RootSecret(b"customer".ljust(32))), f"{shop.url}/upload"
        identity = make_header(signer, verb="upload", digest=digest, host="127.0.0.1", now=shop.clock.now())
        headers = {"Authorization": identity, "X-SHA-256": digest}
        _, preimage = await shop.pay(await http.head(url, headers={**headers, "X-Content-Length": str(len(data))}))
        paid = {**headers, "X-Lightning": preimage}
        stream = await trio.open_tcp_stream("127.0.0.1", int(shop.url.rpartition(":")[2]))
        async with stream:
            head = "".join(f"{name}: {value}\r\n" for name, value in paid.items())
            await stream.send_all(f"PUT /upload HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n{head}\r\n".encode() + data[:500])
        wrong = await http.put(url, headers=paid, content=bytes(len(data)))
        assert (wrong.status_code, shop.store.path(digest)) == (409, None)
        assert "SHA-256" in wrong.headers["x-reason"]
        larger = await http.put(url, headers=paid, content=data + b"!")
        assert larger.status_code == 413
        assert (await http.put(url, headers=paid, content=data)).status_code == 201
        spent = await http.put(url, headers=paid, content=data)
        assert (spent.status_code, "used up" in spent.headers["x-reason"]) == (409, True)
        assert await shop.spent() == 1000


@pytest.mark.parametrize("header", ["Authorization: L402 " + "A" * 100_000, "X-Lightning: " + "0" * 100_000, "X: y\r\n" * 20_000])
async def test_huge_headers_end_their_own_connection_only(simnet: SimnetProcess, tmp_path: Path, header: str) -> None:
    shop = Shop(simnet, tmp_path)
    async with shop.open(), httpx.AsyncClient(trust_env=False) as http:
        digest = await shop.stock()
        stream = await trio.open_tcp_stream("127.0.0.1", int(shop.url.rpartition(":")[2]))
        async with stream:
            with contextlib.suppress(trio.BrokenResourceError):
                await stream.send_all(f"GET /{digest} HTTP/1.1\r\nHost: x\r\n{header}\r\n\r\n".encode())
                assert (await stream.receive_some(13))[:10] in (b"", b"HTTP/1.1 4")
        assert (await http.get(f"{shop.url}/{digest}")).status_code == 402


async def test_floods_are_429_before_an_invoice_is_made(simnet: SimnetProcess, tmp_path: Path) -> None:
    shop = Shop(simnet, tmp_path)
    async with shop.open(Rates(address=3)), httpx.AsyncClient(trust_env=False) as http:
        await shop.stock()
        found = [await http.get(f"{shop.url}/{DIGEST}") for _ in range(4)]
        assert [response.status_code for response in found] == [402] * 3 + [429]
        assert int(found[-1].headers["retry-after"]) <= 20
