"""Several sources of one blob: who is asked when, who goes on where another broke off, and who is blamed for what was wrong."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from nostrain.blobs.client import BlossomClient
from nostrain.blobs.gather import Part, culprit
from nostrain.blobs.scores import REMEMBERED, Scores
from nostrain.blobs.tuning import Tuning
from nostrain.blobs.urls import parse_url_untrusted, source_of
from nostrain.errors import RemoteProtocolError, Unavailable
from nostrain.units import Digest, Pubkey

from .scripted import DATA, DIGEST, Request, Script, Scripted, World, reply, resume

HASTY = Tuning(attempts=2, backoff=0.001, hedge=0.01)
PATIENT = Tuning(attempts=2, backoff=0.001, hedge=1e6)


def urls(*servers: Scripted) -> list[str]:
    return [f"{server.url}/{DIGEST}" for server in servers]


def scores(client: BlossomClient) -> Scores:
    return client._means.scores


class Silent:
    """A server that takes a request and says nothing until it is hung up on."""

    def __init__(self) -> None:
        self.asked, self.left = trio.Event(), trio.Event()

    async def script(self, request: Request, stream: trio.SocketStream) -> None:
        self.asked.set()
        await stream.receive_some(1)
        self.left.set()


def lying(prefix: int) -> Script:
    """Zeros instead of the first bytes, and then broken off."""
    return reply("200 OK", bytes(len(DATA)), sent=prefix)


async def test_a_late_server_gets_another_beside_it_and_is_left_when_that_sends(world: World) -> None:
    silent = Silent()
    late, quick = await world.server(silent.script), await world.server(resume)
    path = await world.client(tuning=HASTY).get(DIGEST, urls(late, quick), len(DATA))
    assert path.read_bytes() == DATA
    await silent.left.wait()
    assert (len(late.requests), len(quick.requests)) == (1, 1)


async def test_a_server_that_is_in_time_is_asked_alone(world: World) -> None:
    first, second = await world.server(resume), await world.server(resume)
    await world.client(tuning=PATIENT).get(DIGEST, urls(first, second), len(DATA))
    assert (len(first.requests), len(second.requests)) == (1, 0)


async def test_two_are_asked_at_once_and_a_third_when_one_of_them_fails(world: World) -> None:
    silent = Silent()

    async def refuse(request: Request, stream: trio.SocketStream) -> None:
        await silent.asked.wait()
        await reply("503 Not Now")(request, stream)

    first, second, third = await world.server(silent.script), await world.server(refuse), await world.server(resume)
    path = await world.client(tuning=HASTY).get(DIGEST, urls(first, second, third), len(DATA))
    assert path.read_bytes() == DATA
    assert [len(server.requests) for server in (first, second, third)] == [1, 1, 1]


async def test_another_server_goes_on_where_one_broke_off(world: World) -> None:
    broken = await world.server(reply("200 OK", DATA, sent=100_000), reply("503 Gone"))
    other = await world.server(resume)
    path = await world.client(tuning=PATIENT).get(DIGEST, urls(broken, other), len(DATA))
    assert path.read_bytes() == DATA
    assert [request.headers.get("range") for request in other.requests] == ["bytes=100000-"]
    assert len(broken.requests) == 1


async def test_what_came_is_kept_while_all_servers_are_away(world: World) -> None:
    server = await world.server(reply("200 OK", DATA, sent=100_000), reply("503 Gone"), resume)
    await world.client(tuning=PATIENT).get(DIGEST, urls(server), len(DATA))
    assert [request.headers.get("range") for request in server.requests] == [None, "bytes=100000-", "bytes=100000-"]


async def test_the_same_server_is_asked_for_the_same_version(world: World) -> None:
    tagged = reply("200 OK", DATA, sent=100_000, headers='ETag: "v1"\r\n')
    server = await world.server(tagged, resume)
    await world.client(tuning=PATIENT).get(DIGEST, urls(server), len(DATA))
    assert server.requests[1].headers["if-range"] == '"v1"'


async def test_a_part_of_what_was_asked_for_is_not_taken_for_the_end(world: World) -> None:
    piece = reply("206 Partial Content", DATA[100_000:150_000], headers=f"Content-Range: bytes 100000-149999/{len(DATA)}\r\n")
    server = await world.server(reply("200 OK", DATA, sent=100_000), piece, resume)
    assert (await world.client(tuning=PATIENT).get(DIGEST, urls(server), len(DATA))).read_bytes() == DATA
    assert server.requests[2].headers["range"] == "bytes=150000-"


async def test_who_poisoned_a_common_transfer_is_found_and_asked_last(world: World) -> None:
    liar, honest = await world.server(lying(50_000)), await world.server(resume)
    client = world.client(tuning=PATIENT)
    assert (await client.get(DIGEST, urls(liar, honest), len(DATA))).read_bytes() == DATA
    assert scores(client).benched(liar.url)
    assert not scores(client).benched(honest.url)
    await client.discard(DIGEST)
    await client.get(DIGEST, urls(liar, honest), len(DATA))
    assert len(liar.requests) == 1, "it is asked last, so never again"


async def test_sizes_that_contradict_each_other_end_the_common_transfer(world: World) -> None:
    other = reply("206 Partial Content", DATA[100_000:], headers=f"Content-Range: bytes 100000-{len(DATA)}/{len(DATA) + 1}\r\n")
    broken = await world.server(reply("200 OK", DATA, sent=100_000), reply("503 Gone"))
    odd = await world.server(other, resume)
    assert (await world.client(tuning=PATIENT).get(DIGEST, urls(broken, odd), len(DATA))).read_bytes() == DATA
    assert "range" not in odd.requests[1].headers


async def test_a_stranger_cannot_have_a_server_benched(world: World) -> None:
    """By naming another file of it, a blob that it does not have, or a size that is too small."""
    server = await world.server(reply("200 OK", b"another file"), reply("404 Not Found"), reply("404 Not Found"), reply("200 OK", DATA))
    client = world.client(tuning=PATIENT)
    with pytest.raises(RemoteProtocolError, match="SHA-256"):
        await client.get(DIGEST, [f"{server.url}/{DIGEST}/another"], len(DATA))
    with pytest.raises(Unavailable):
        await client.get(DIGEST, urls(server), len(DATA))
    with pytest.raises(RemoteProtocolError, match="at most"):
        await client.get(DIGEST, urls(server), len(DATA) - 1)
    assert scores(client)._of == {}


@dataclass
class Lists:
    """What authors say of their servers, and who was asked about."""

    known: dict[Pubkey, tuple[str, ...]]
    asked: list[Pubkey] = field(default_factory=list)

    async def servers(self, author: Pubkey) -> tuple[str, ...]:
        await trio.lowlevel.checkpoint()
        self.asked.append(author)
        return self.known.get(author, ())


@pytest.mark.parametrize("named", ["404 Not Found", "403 Forbidden"])
async def test_the_authors_own_servers_are_asked_when_all_others_fail(world: World, named: str) -> None:
    author, first, second = Pubkey("a" * 64), await world.server(reply(named)), await world.server(resume)
    lists = Lists({author: ("nonsense", "file:///etc", first.url, f"{second.url}/")})
    client = world.client(tuning=PATIENT, lists=lists)
    assert (await client.get(DIGEST, urls(first), len(DATA), author)).read_bytes() == DATA
    assert ([request.line for request in second.requests], lists.asked) == ([f"GET /{DIGEST} HTTP/1.1"], [author])


async def test_lists_are_not_asked_for_without_need_nor_twice(world: World) -> None:
    author, serving, refusing = Pubkey("a" * 64), await world.server(resume), await world.server(reply("404 Not Found"))
    lists = Lists({})
    client = world.client(tuning=PATIENT, lists=lists)
    with pytest.raises(Unavailable):
        await client.get(DIGEST, urls(refusing), len(DATA), author)
    assert lists.asked == [author]
    await client.get(DIGEST, urls(serving), len(DATA), author)
    assert lists.asked == [author]


async def test_an_upload_does_not_wait_for_a_server_that_is_much_slower(world: World, caplog: pytest.LogCaptureFixture) -> None:
    silent = Silent()
    stuck = await world.server(silent.script)
    taking = await world.server(reply("404 Not Found"), reply("201 Created"))
    path = world.folder / "source.bin"
    path.write_bytes(DATA)
    client = world.client(stuck, taking, tuning=Tuning(laggards=0.01))
    assert await client.put(path, DIGEST) == (f"{taking.url}/{DIGEST}",)
    assert "on 1 of 2 servers: 127.0.0.1: much slower than another server" in caplog.text


class Table:
    """Scores with a clock of the test's."""

    def __init__(self) -> None:
        self.time = 0.0
        self.scores = Scores(Tuning(), lambda: self.time)

    def asked(self, *servers: str) -> list[str | None]:
        sources = [source_of(parse_url_untrusted(f"{server}/{DIGEST}"), DIGEST) for server in servers]
        return [source.server for source in self.scores.order(sources, 10_000_000)]


A, B, C = "https://a.example", "https://b.example", "https://c.example"


def test_patience_follows_what_a_server_used_to_need() -> None:
    table = Table().scores
    assert table.patience(A) == table.patience(None) == Tuning().hedge
    for seconds in (1.0, 1.2, 0.8, 1.1, 0.9):
        table.began(A, seconds)
    assert table.patience(A) == pytest.approx(1.0 + 4 * 0.1)
    for _ in range(16):
        table.began(A, 0.001)
    assert table.patience(A) == 0.05
    for _ in range(16):
        table.overtaken(A, 3000.0)
    assert table.patience(A) == Tuning().silence
    table.overtaken(A, 0.001)
    assert table.patience(A) == Tuning().silence, "it was not late"


def test_the_quick_are_asked_before_the_slow_and_both_before_the_faulty() -> None:
    table = Table()
    assert table.asked(A, B, C) == [A, B, C]
    table.scores.began(A, 0.1)
    table.scores.delivered(A, 10_000_000, 10.0)
    table.scores.began(B, 0.5)
    table.scores.delivered(B, 10_000_000, 1.0)
    table.scores.failed(C)
    assert table.asked(A, B, C) == [B, A, C]
    table.scores.delivered(C, 0, 0.0)
    table.scores.began(C, 0.01)
    assert table.asked(A, B, C) == [C, B, A]


def test_a_dead_server_is_benched_and_tried_again_later() -> None:
    table = Table()
    for _ in range(3):
        assert not table.scores.benched(A)
        table.scores.failed(A)
    assert table.scores.benched(A)
    table.time += 30
    assert not table.scores.benched(A)
    for _ in range(100):
        table.scores.failed(A)
    table.time += 1799
    assert table.scores.benched(A)
    table.scores.delivered(A, 1, 1.0)
    assert not table.scores.benched(A)


def test_a_liar_is_asked_last_for_longer_each_time_whatever_it_delivers() -> None:
    table = Table()
    for seconds in (600, 1200, 2400):
        table.scores.lied(A)
        table.scores.delivered(A, 1, 1.0)
        table.time += seconds - 1
        assert table.asked(A, B) == [B, A]
        table.time += 1
        assert table.asked(A, B) == [A, B]


def test_the_table_is_bounded() -> None:
    table = Table().scores
    for number in range(REMEMBERED + 10):
        table.failed(f"https://{number}.example")
    assert len(table._of) == REMEMBERED
    assert "https://9.example" not in table._of


@settings(max_examples=30)
@given(st.lists(st.binary(max_size=50), max_size=6), st.integers(0, 5), st.booleans())
def test_the_culprit_is_who_sent_the_first_wrong_byte(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes], at: int, longer: bool
) -> None:
    path: Path = tmp_path_factory.mktemp("blob") / "blob"
    path.write_bytes(b"".join(pieces))
    parts, sent = [], b""
    sources = [source_of(parse_url_untrusted(f"https://{number}.example/{DIGEST}"), DIGEST) for number in range(len(pieces))]
    for number, piece in enumerate(pieces):
        if number == at:
            piece = piece + b"!" if longer or not piece else bytes([piece[0] ^ 1]) + piece[1:]
        sent += piece
        parts.append(Part(sources[number], len(sent), Digest(hashlib.sha256(sent).hexdigest())))
    assert culprit(parts, path) == (sources[at] if at < len(pieces) else None)
