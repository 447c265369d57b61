"""How blobs are served: ranges under conditions, what a cache asks, a blob that goes while it is served, and BUD-01's headers on every refusal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from starlette.types import Message

from nostrain.blobs.incoming import STEP
from nostrain.blobs.policy import BlobLimits
from nostrain.hashes import sha256_hex
from nostrain.units import Digest, Pubkey

from .blossom_world import DATA, DIGEST, HOST, NOW, Server, signer, token

TAG = f'"{DIGEST}"'


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path, BlobLimits(max_blob=20_000, quota=25_000))
    yield server
    server.store.close()


@pytest.mark.parametrize(
    ("condition", "status"), [(TAG, 206), (f"W/{TAG}", 200), ('"another"', 200), ("Wed, 21 Oct 2026 07:28:00 GMT", 200)]
)
async def test_a_range_of_this_version_only(server: Server, condition: str, status: int) -> None:
    await server.put()
    served = await server.http.get(f"/{DIGEST}", headers={"range": "bytes=5-", "if-range": condition})
    assert (served.status_code, served.content) == (status, DATA[5:] if status == 206 else DATA)
    assert served.headers["etag"] == TAG


async def test_head_has_no_ranges(server: Server) -> None:
    await server.put()
    whole = await server.http.head(f"/{DIGEST}")
    asked = await server.http.head(f"/{DIGEST}", headers={"range": f"bytes={len(DATA)}-"})
    assert (asked.status_code, asked.headers) == (200, whole.headers)
    assert (whole.headers["content-length"], whole.headers["accept-ranges"]) == (str(len(DATA)), "bytes")


@pytest.mark.parametrize(("condition", "status"), [(TAG, 304), (f'"x", W/{TAG}', 304), ("*", 304), ('"x"', 200), ("", 200)])
async def test_what_a_cache_has_is_not_sent_again(server: Server, condition: str, status: int) -> None:
    await server.put()
    served = await server.http.get(f"/{DIGEST}", headers={"if-none-match": condition})
    assert (served.status_code, served.content, served.headers["etag"]) == (status, b"" if status == 304 else DATA, TAG)


async def test_an_empty_blob(server: Server) -> None:
    empty = sha256_hex(b"")
    assert (await server.put(b"")).status_code == 201
    served = await server.http.get(f"/{empty}")
    assert (served.status_code, served.content, served.headers["content-length"]) == (200, b"", "0")
    assert (await server.http.get(f"/{empty}", headers={"range": "bytes=0-"})).status_code == 416


async def test_a_blob_that_is_removed_while_it_is_served_is_served_to_its_end(tmp_path: Path) -> None:
    server = Server(tmp_path)
    data = bytes(3 * STEP)
    digest = Digest(sha256_hex(data))
    await server.put(data)
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)
        if len(sent) == 2:
            await server.store.delete(digest, signer("alice").pubkey)

    await server.app(_get(digest), trio.sleep_forever, send)
    assert server.files() == {}
    assert b"".join(message.get("body", b"") for message in sent) == data
    server.store.close()


async def test_a_transfer_ends_with_its_peer(tmp_path: Path) -> None:
    server = Server(tmp_path)
    data = bytes(3 * STEP)
    await server.put(data)
    gone, sent = trio.Event(), 0

    async def send(message: Message) -> None:
        nonlocal sent
        sent += len(message.get("body", b""))
        if sent:
            gone.set()
            await trio.sleep_forever()

    async def receive() -> Message:
        await gone.wait()
        return {"type": "http.disconnect"}

    await server.app(_get(Digest(sha256_hex(data))), receive, send)
    assert sent == STEP
    server.store.close()


async def test_a_blob_that_goes_between_two_looks_is_not_found(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    await server.put()
    gone = server.store.path(DIGEST)
    assert gone is not None
    gone.unlink()
    monkeypatch.setattr(server.store, "path", lambda _: gone)
    assert (await server.http.get(f"/{DIGEST}")).status_code == 404


async def test_a_token_for_the_address_or_for_the_name(server: Server) -> None:
    """A server behind a proxy is called by its public name; whoever is beside it, by its address."""
    assert (await server.put(authorization=token("upload", DIGEST, servers=(HOST,)))).status_code == 201
    app, scope = server.app, {**_get(DIGEST), "method": "DELETE", "server": ("10.0.0.7", 80)}
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    for host, status in (("10.0.0.8", 401), ("10.0.0.7", 204)):
        scope["headers"] = [(b"authorization", token("delete", DIGEST, servers=(host,)).encode())]
        await app(scope, trio.sleep_forever, send)
        assert sent[-2]["status"] == status


FORGOTTEN = Pubkey("00" * 32)
MINE = {"authorization": token("upload", DIGEST)}


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "status"),
    [
        ("GET", f"/{DIGEST.upper()}", {}, b"", 400),
        ("GET", f"/list/{FORGOTTEN}?limit=x", {}, b"", 400),
        ("PUT", "/upload", {"x-sha-256": DIGEST}, DATA, 401),
        ("DELETE", f"/{DIGEST}", {"authorization": token("delete", DIGEST, who="bob")}, b"", 403),
        ("GET", f"/{'0' * 64}", {}, b"", 404),
        ("GET", "/no/such/path", {}, b"", 404),
        ("POST", "/upload", MINE, DATA, 405),
        ("PUT", "/upload", {"authorization": token("upload", "0" * 64)}, DATA, 409),
        ("HEAD", "/upload", {"x-sha-256": DIGEST, **MINE}, b"", 411),
        ("HEAD", "/upload", {"x-sha-256": DIGEST, "x-content-length": "20001", **MINE}, b"", 413),
        ("GET", f"/{DIGEST}", {"range": "bytes=99999-"}, b"", 416),
        ("HEAD", "/upload", {"x-sha-256": "1" * 64, "x-content-length": "20000", "authorization": token("upload", "1" * 64)}, b"", 429),
    ],
)
async def test_every_refusal_may_be_read_by_any_origin_and_says_why(
    server: Server, method: str, path: str, headers: dict[str, str], body: bytes, status: int
) -> None:
    await server.put()
    answer = await server.http.request(method, path, headers=headers, content=body)
    assert answer.status_code == status
    assert (answer.headers["access-control-allow-origin"], answer.headers["access-control-expose-headers"]) == ("*", "*")
    assert answer.headers["x-reason"]


async def test_an_upload_for_which_there_is_no_room_is_refused_before_it_is_paid_or_sent(server: Server) -> None:
    server.store.reserve = 1 << 60
    headers = {"X-SHA-256": DIGEST, "X-Content-Length": str(len(DATA)), **MINE}
    asked = await server.http.head("/upload", headers=headers)
    assert (asked.status_code, asked.headers["access-control-allow-origin"]) == (507, "*")
    assert "free for blobs" in asked.headers["x-reason"]
    assert (await server.put()).status_code == 507
    server.store.reserve = 0
    assert (await server.http.head("/upload", headers=headers)).status_code == 200
    await server.put()
    server.store.reserve = 1 << 60
    assert (await server.put()).status_code == 200  # it is here already
    assert (await server.http.get(f"/list/{signer('alice').pubkey}")).json()[0]["uploaded"] == NOW


def _get(digest: Digest) -> dict[str, object]:
    return {
        "type": "http",
        "method": "GET",
        "path": f"/{digest}",
        "raw_path": f"/{digest}".encode(),
        "query_string": b"",
        "headers": [],
        "server": (HOST, 443),
        "scheme": "https",
    }
