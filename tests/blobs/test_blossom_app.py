"""The Blossom server's application: what it takes, serves and refuses, status by status (BUD-01, 02, 06, 11, 12)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from nostrain.blobs.policy import BlobLimits
from nostrain.hashes import sha256_hex

from .blossom_world import DATA, DIGEST, HOST, NOW, PUBLIC, Server, reason, signer, token

HALF = len(DATA) // 2


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path, BlobLimits(max_blob=20_000, quota=25_000))
    yield server
    server.store.close()


async def test_upload_then_download(server: Server) -> None:
    created = await server.put()
    assert created.status_code == 201
    assert created.json() == {
        "url": f"{PUBLIC}/{DIGEST}.bin",
        "sha256": DIGEST,
        "size": len(DATA),
        "type": "application/octet-stream",
        "uploaded": NOW,
    }
    for name in (DIGEST, f"{DIGEST}.bin", f"{DIGEST}.safetensors"):
        served = await server.http.get(f"/{name}")
        assert (served.status_code, served.content) == (200, DATA)
        assert served.headers["content-type"] == "application/octet-stream"
        assert served.headers["access-control-allow-origin"] == "*"
    head = await server.http.head(f"/{DIGEST}")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(DATA))
    assert head.headers["accept-ranges"] == "bytes"


async def test_a_second_upload_finds_the_first(server: Server) -> None:
    await server.put()
    server.clock.time += 5
    again = await server.put()
    assert (again.status_code, again.json()["uploaded"]) == (200, NOW)


async def test_the_token_alone_may_name_the_blob(server: Server) -> None:
    assert (await server.put(x_sha_256=None)).status_code == 201


@pytest.mark.parametrize(
    ("asked", "status", "content", "content_range"),
    [
        ("bytes=0-9", 206, DATA[:10], f"bytes 0-9/{len(DATA)}"),
        (f"bytes={HALF}-", 206, DATA[HALF:], f"bytes {HALF}-{len(DATA) - 1}/{len(DATA)}"),
        ("bytes=-7", 206, DATA[-7:], f"bytes {len(DATA) - 7}-{len(DATA) - 1}/{len(DATA)}"),
        (f"bytes=5-{'9' * 30}", 206, DATA[5:], f"bytes 5-{len(DATA) - 1}/{len(DATA)}"),
        (f"bytes=-{'9' * 30}", 206, DATA, f"bytes 0-{len(DATA) - 1}/{len(DATA)}"),
        (" Bytes = 3 - 3 ", 206, DATA[3:4], f"bytes 3-3/{len(DATA)}"),
        ("bytes=0-1,3-4", 200, DATA, None),
        ("pages=1-2", 200, DATA, None),
    ],
)
async def test_ranges(server: Server, asked: str, status: int, content: bytes, content_range: str | None) -> None:
    await server.put()
    served = await server.http.get(f"/{DIGEST}", headers={"range": asked})
    assert (served.status_code, served.content, served.headers.get("content-range")) == (status, content, content_range)
    assert served.headers["content-length"] == str(len(content))


@pytest.mark.parametrize("asked", ["bytes", "bytes=x-y", "bytes=-", "bytes=", "bytes=--5", "bytes=1", "bytes=\u0663-"])
async def test_malformed_ranges_are_refused(server: Server, asked: str) -> None:
    await server.put()
    assert (await server.http.get(f"/{DIGEST}", headers={"range": asked.encode()})).status_code == 400


@pytest.mark.parametrize("asked", [f"bytes={len(DATA)}-", f"bytes={'9' * 30}-", "bytes=-0", "bytes=9-5"])
async def test_ranges_that_hold_nothing(server: Server, asked: str) -> None:
    await server.put()
    served = await server.http.get(f"/{DIGEST}", headers={"range": asked})
    assert (served.status_code, served.headers["content-range"]) == (416, f"bytes */{len(DATA)}")


async def test_an_unknown_blob(server: Server) -> None:
    for method in ("GET", "HEAD"):
        assert (await server.http.request(method, f"/{DIGEST}")).status_code == 404
    assert reason(await server.http.get(f"/{DIGEST}")) == "no such blob here"


@pytest.mark.parametrize(
    "name", [DIGEST.upper(), DIGEST[:-1], f"{DIGEST}.", f"{DIGEST}.a/b", "index.sqlite", "%2e%2e%2findex.sqlite", "tmp", "0.part"]
)
async def test_nothing_but_digests_is_served(server: Server, name: str) -> None:
    await server.put()
    for path in (f"/{name}", f"/../{name}", f"/%2e%2e/{name}", f"//{name}", f"/{DIGEST[:2]}/{name}"):
        assert (await server.http.get(path)).status_code in (400, 404)


@pytest.mark.parametrize(
    ("authorization", "told"),
    [
        ("Bearer abc", "not of the form"),
        ("Nostr", "not of the form"),
        ("Nostr ***", "not base64"),
        ("Nostr e30=", "event"),
        ("Nostr " + "A" * 20_000, "longer than"),
        (token("upload", DIGEST, kind=1), "kind 1 is not 24242"),
        (token("delete", DIGEST), "does not allow 'upload'"),
        (token("upload", DIGEST, expiration=str(NOW)), "has expired"),
        (token("upload", DIGEST, expiration=None), "no expiration"),
        (token("upload", DIGEST, expiration="tomorrow"), "no expiration"),
        (token("upload", DIGEST, created_at=NOW + 3600), "in the future"),
        (token("upload", sha256_hex(b"another")), "not for the blob"),
        (token("upload"), "not for the blob"),
        (token("upload", DIGEST, servers=("other.example",)), "for other servers"),
    ],
)
async def test_bad_tokens(server: Server, authorization: str, told: str) -> None:
    response = await server.put(authorization=authorization)
    assert response.status_code == 401
    assert told in reason(response)
    assert server.files() == {}


async def test_a_missing_token(server: Server) -> None:
    response = await server.http.put("/upload", content=DATA, headers={"x-sha-256": DIGEST})
    assert (response.status_code, server.files()) == (401, {})


async def test_a_token_may_be_scoped_to_this_server(server: Server) -> None:
    assert (await server.put(authorization=token("upload", DIGEST, servers=("other.example", HOST)))).status_code == 201


async def test_a_forged_token(server: Server) -> None:
    honest = token("upload", DIGEST)
    forged = honest[:-30] + ("A" if honest[-30] != "A" else "B") + honest[-29:]
    assert (await server.put(authorization=forged)).status_code == 401


async def test_a_token_replayed_for_another_blob(server: Server) -> None:
    used = token("upload", DIGEST)
    assert (await server.put(authorization=used)).status_code == 201
    response = await server.put(b"other bytes", authorization=used)
    assert response.status_code == 401
    assert "not for the blob" in reason(response)


async def test_bytes_that_are_not_the_blob(server: Server) -> None:
    response = await server.put(DATA, authorization=token("upload", DIGEST))
    wrong = await server.put(b"something else", authorization=token("upload", sha256_hex(b"x")), x_sha_256=sha256_hex(b"x"))
    assert (response.status_code, wrong.status_code) == (201, 409)
    assert sha256_hex(b"something else") in reason(wrong)
    assert server.files() == {f"{DIGEST[:2]}/{DIGEST}": DATA}


@pytest.mark.parametrize(
    ("headers", "status"), [({"x_sha_256": "12"}, 400), ({"content_length": "-3"}, 400), ({"content_length": "9" * 20}, 400)]
)
async def test_malformed_headers(server: Server, headers: dict[str, str], status: int) -> None:
    response = await server.put(**headers)
    assert (response.status_code, server.files()) == (status, {})


async def test_two_names_need_the_header(server: Server) -> None:
    response = await server.put(authorization=token("upload", DIGEST, "00" * 32), x_sha_256=None)
    assert response.status_code == 400
    assert (await server.put(authorization=token("upload", DIGEST, "00" * 32))).status_code == 201


async def test_a_length_is_required(server: Server) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield DATA

    headers = {"authorization": token("upload", DIGEST), "x-sha-256": DIGEST}
    response = await server.http.put("/upload", content=chunks(), headers=headers)
    assert (response.status_code, server.files()) == (411, {})


@pytest.mark.parametrize("declared", [len(DATA) - 1, len(DATA) + 1])
async def test_a_body_of_another_length(server: Server, declared: int) -> None:
    response = await server.put(content_length=str(declared))
    assert (response.status_code, server.files()) == (400, {})


async def test_too_large_is_refused_by_its_headers(server: Server) -> None:
    response = await server.put(content_length="20001")
    assert response.status_code == 413
    assert "at most 20000" in reason(response)


async def test_the_policy_refuses(server: Server) -> None:
    server.policy.reasons[signer("alice").pubkey] = "not enrolled\r\nX-Evil: 1 \N{SNOWMAN}"
    response = await server.put()
    assert (response.status_code, reason(response)) == (403, "not enrolled??X-Evil: 1 ?")
    assert (await server.put(authorization=token("upload", DIGEST, who="bob"))).status_code == 201


async def test_the_quota_counts_each_key(server: Server) -> None:
    assert (await server.put(b"a" * 20_000)).status_code == 201
    response = await server.put(b"b" * 5_001)
    assert response.status_code == 429
    assert "quota of 25000" in reason(response)
    assert (await server.put(b"b" * 5_000)).status_code == 201
    assert (await server.put(b"c" * 5_001, authorization=token("upload", sha256_hex(b"c" * 5_001), who="bob"))).status_code == 201


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, 200),
        ({"X-Content-Length": "20001"}, 413),
        ({"X-Content-Length": None}, 411),
        ({"X-SHA-256": None}, 400),
        ({"X-SHA-256": "zz"}, 400),
        ({"Authorization": None}, 401),
        ({"Authorization": token("upload", DIGEST, expiration="1")}, 401),
    ],
)
async def test_asking_before_uploading(server: Server, changes: dict[str, str | None], status: int) -> None:
    headers = {"X-SHA-256": DIGEST, "X-Content-Length": "500", "Authorization": token("upload", DIGEST), **changes}
    response = await server.http.head("/upload", headers={name: value for name, value in headers.items() if value is not None})
    assert (response.status_code, response.content) == (status, b"")
    assert ("x-reason" in response.headers) == (status != 200)


async def test_only_the_uploader_deletes(server: Server) -> None:
    await server.put()
    delete = {who: {"authorization": token("delete", DIGEST, who=who)} for who in ("alice", "bob")}
    assert (await server.http.delete(f"/{DIGEST}", headers=delete["bob"])).status_code == 403
    assert (await server.http.delete(f"/{DIGEST}", headers={"authorization": token("upload", DIGEST)})).status_code == 401
    assert (await server.http.delete(f"/{DIGEST}")).status_code == 401
    assert (await server.http.delete(f"/{DIGEST}", headers=delete["alice"])).status_code == 204
    assert (await server.http.get(f"/{DIGEST}")).status_code == 404
    assert (await server.http.delete(f"/{DIGEST}", headers=delete["alice"])).status_code == 404


async def test_a_blob_lives_until_its_last_uploader_deletes_it(server: Server) -> None:
    for who in ("alice", "bob"):
        await server.put(authorization=token("upload", DIGEST, who=who))
    await server.http.delete(f"/{DIGEST}", headers={"authorization": token("delete", DIGEST, who="alice")})
    assert (await server.http.get(f"/{DIGEST}")).content == DATA
    await server.http.delete(f"/{DIGEST}", headers={"authorization": token("delete", DIGEST, who="bob")})
    assert server.files() == {}


async def test_lists_are_paged_newest_first(server: Server) -> None:
    blobs = []
    for data in (b"1", b"2", b"3"):
        blobs.append(sha256_hex(data))
        await server.put(data)
        server.clock.time += 1
    url = f"/list/{signer('alice').pubkey}"
    assert [blob["sha256"] for blob in (await server.http.get(url)).json()] == blobs[::-1]
    page = (await server.http.get(url, params={"limit": "2"})).json()
    rest = (await server.http.get(url, params={"cursor": page[-1]["sha256"]})).json()
    assert [blob["sha256"] for blob in page + rest] == blobs[::-1]
    assert (await server.http.get(f"/list/{signer('bob').pubkey}")).json() == []
    for bad in ("/list/abc", f"{url}?limit=-1", f"{url}?cursor=abc"):
        assert (await server.http.get(bad)).status_code == 400


async def test_preflight(server: Server) -> None:
    response = await server.http.options("/upload")
    assert response.status_code == 204
    assert response.headers["access-control-allow-headers"] == "Authorization, *"
    assert response.headers["access-control-allow-methods"] == "GET, HEAD, PUT, DELETE"
    assert response.headers["access-control-allow-origin"] == "*"
