"""`PUT /mirror` (BUD-04): what a server fetches for others, from origins that lie, break off, or are where it must not look."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest

from nostrain.blobs.download import connections
from nostrain.blobs.policy import BlobLimits
from nostrain.blobs.tuning import Tuning
from nostrain.hashes import sha256_hex
from nostrain.http.outbound import outbound
from nostrain.http.server import serve

from .blossom_world import DATA, DIGEST, PUBLIC, Body, Server, reason, signer, token

ORIGIN = "https://origin.example"
URL = f"{ORIGIN}/{DIGEST}.bin"

Answer = Callable[[httpx.Request], httpx.Response]


class Origin:
    """Another server, which answers as the test says; at first it has DATA."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answer: Answer = lambda _: httpx.Response(200, content=DATA)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.method)
        response = self.answer(request)
        body = Body(b"" if request.method == "HEAD" else response.content)
        return httpx.Response(response.status_code, headers=response.headers, stream=body)


class World:
    """A server that mirrors from the origin."""

    def __init__(self, folder: Path) -> None:
        self.origin = Origin()
        mirror = connections(httpx.MockTransport(self.origin), Tuning())
        self.server = Server(folder, BlobLimits(max_blob=20_000, quota=25_000), mirror)

    async def mirror(self, url: str = URL, *, body: bytes | None = None, authorization: str | None = None) -> httpx.Response:
        sent = {"authorization": authorization or token("upload", DIGEST)}
        content = b'{"url": "%s"}' % url.encode() if body is None else body
        request = self.server.http.build_request("PUT", "/mirror", headers=sent)
        request.stream = Body(content)
        return await self.server.http.send(request)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    yield world
    world.server.store.close()


async def test_a_blob_is_fetched_stored_and_served(world: World) -> None:
    created = await world.mirror()
    assert created.status_code == 201
    assert created.json()["url"] == f"{PUBLIC}/{DIGEST}.bin"
    assert created.json()["size"] == len(DATA)
    assert (await world.server.http.get(f"/{DIGEST}")).content == DATA
    listed = (await world.server.http.get(f"/list/{signer('alice').pubkey}")).json()
    assert [blob["sha256"] for blob in listed] == [DIGEST]


async def test_what_is_here_is_not_asked_for(world: World) -> None:
    await world.server.put()
    assert (await world.mirror()).status_code == 200
    assert world.origin.asked == []


async def test_a_redirect_to_the_same_blob_is_followed(world: World) -> None:
    there = f"https://cdn.example/{DIGEST}"
    world.origin.answer = lambda request: (
        httpx.Response(200, content=DATA) if str(request.url) == there else httpx.Response(302, headers={"location": there})
    )
    assert (await world.mirror()).status_code == 201


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "not of the form"),
        (b"\xff", "not of the form"),
        (b"[" * 5000, "not of the form"),
        (b'["url"]', "not of the form"),
        (b"{}", "has no url"),
        (b'{"url": 7}', "has no url"),
        (b'{"url": "file:///etc/passwd"}', "http"),
        (b'{"url": "https://user:secret@origin.example/"}', "http"),
        (b'{"url": "https://%s/"}' % (b"a" * 300), "host name"),
    ],
)
async def test_malformed_bodies(world: World, body: bytes, told: str) -> None:
    response = await world.mirror(body=body)
    assert response.status_code == 400
    assert told in reason(response)
    assert world.origin.asked == []


async def test_a_body_that_is_no_url_but_a_flood(world: World) -> None:
    assert (await world.mirror(body=b'{"url": "' + b"a" * 10_000)).status_code == 413


@pytest.mark.parametrize("authorization", [token("delete", DIGEST), token("upload", DIGEST, expiration="1"), "Nostr e30="])
async def test_nothing_is_asked_for_those_without_a_token(world: World, authorization: str) -> None:
    assert (await world.mirror(authorization=authorization)).status_code == 401
    assert world.origin.asked == []


async def test_nothing_is_asked_for_those_who_may_not_upload(world: World) -> None:
    world.server.policy.reasons[signer("alice").pubkey] = "not enrolled"
    assert (await world.mirror()).status_code == 403
    assert world.origin.asked == []


async def test_of_several_blobs_the_url_names_one(world: World) -> None:
    both = token("upload", DIGEST, "00" * 32)
    assert (await world.mirror(f"{ORIGIN}/x", authorization=both)).status_code == 400
    assert (await world.mirror(authorization=both)).status_code == 201


async def test_a_blob_that_the_token_does_not_name(world: World) -> None:
    assert (await world.mirror(authorization=token("upload"))).status_code == 401
    assert world.origin.asked == []
    world.origin.answer = lambda _: httpx.Response(200, content=b"another blob")
    response = await world.mirror()
    assert response.status_code == 409
    assert sha256_hex(b"another blob") in reason(response)
    assert world.server.files() == {}


async def test_what_is_too_large_is_not_fetched(world: World) -> None:
    world.origin.answer = lambda _: httpx.Response(200, headers={"content-length": "20001"})
    assert (await world.mirror()).status_code == 413
    assert world.origin.asked == ["HEAD"]
    assert (await world.server.put(b"a" * 20_000)).status_code == 201
    world.origin.answer = lambda _: httpx.Response(200, headers={"content-length": "5001"})
    assert (await world.mirror()).status_code == 429
    assert world.origin.asked == ["HEAD", "HEAD"]


def grows(request: httpx.Request) -> httpx.Response:
    return httpx.Response(200, content=b"" if request.method == "HEAD" else DATA + b"more", headers=told(request))


def told(request: httpx.Request) -> dict[str, str]:
    return {"content-length": str(len(DATA))} if request.method == "HEAD" else {}


@pytest.mark.parametrize(
    "answer",
    [
        lambda _: httpx.Response(404),
        lambda _: httpx.Response(402),
        lambda _: httpx.Response(500),
        lambda _: httpx.Response(200, headers={"content-length": "-1"}),
        lambda _: httpx.Response(302, headers={"location": "https://cdn.example/another"}),
        lambda _: httpx.Response(302, headers={"location": f"http://cdn.example/{DIGEST}"}),
        lambda _: httpx.Response(302, headers={"location": URL}),
        lambda request: httpx.Response(200, content=DATA[:-1], headers=told(request)),
        grows,
    ],
    ids=["unknown", "paid", "broken", "no size", "another blob", "off https", "in circles", "shorter", "longer"],
)
async def test_origins_that_are_of_no_use(world: World, answer: Answer) -> None:
    world.origin.answer = answer
    response = await world.mirror()
    assert response.status_code == 502
    assert reason(response)
    assert world.server.files() == {}
    world.origin.answer = lambda _: httpx.Response(200, content=DATA)
    assert (await world.mirror()).status_code == 201


async def test_our_own_network_is_not_asked(tmp_path: Path, nursery: object) -> None:
    """The SSRF guard: a real server on loopback, which is not reached, by its address or its name."""
    asked: list[str] = []

    async def inside(scope: dict[str, str], receive: object, send: object) -> None:
        asked.append(scope["path"])

    async with connections(outbound(False, 4), Tuning()) as http:
        server = Server(tmp_path, mirror=http)
        url: str = await nursery.start(serve, inside, "127.0.0.1:0")  # type: ignore[attr-defined]
        for host in (url, url.replace("127.0.0.1", "localhost"), url.replace("127.0.0.1", "[::ffff:127.0.0.1]")):
            sent = {"authorization": token("upload", DIGEST)}
            response = await server.http.put("/mirror", json={"url": f"{host}/{DIGEST}"}, headers=sent)
            assert response.status_code == 502
            assert "private network" in reason(response)
        server.store.close()
    assert asked == []


async def test_a_server_that_does_not_mirror(tmp_path: Path) -> None:
    server = Server(tmp_path)
    assert (await server.http.put("/mirror", json={"url": URL}, headers={"authorization": token("upload", DIGEST)})).status_code == 405
    server.store.close()
