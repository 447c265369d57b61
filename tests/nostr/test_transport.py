"""The WebSocket transport over loopback TCP: what a broken or hostile server does to it always ends in Unavailable."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import pytest
import trio
import trio_websocket

from nostrain.errors import LocalProtocolError, RemoteProtocolError, Unavailable
from nostrain.nostr import transport
from nostrain.nostr.messages import MAX_MESSAGE_BYTES
from nostrain.nostr.transport import open_websocket, websockets


@pytest.fixture(autouse=True)
async def _impatient() -> object:
    with trio.fail_after(10):
        yield


async def tcp_server(nursery: trio.Nursery, handler: Callable[[trio.SocketStream], Awaitable[None]]) -> str:
    (listener,) = await nursery.start(partial(trio.serve_tcp, handler, 0, host="127.0.0.1"))
    return f"ws://127.0.0.1:{listener.socket.getsockname()[1]}"


async def websocket_server(nursery: trio.Nursery, handler: Callable[[trio_websocket.WebSocketConnection], Awaitable[None]]) -> str:
    async def serve(request: trio_websocket.WebSocketRequest) -> None:
        await handler(await request.accept())

    server = await nursery.start(trio_websocket.serve_websocket, serve, "127.0.0.1", 0, None)
    return f"ws://127.0.0.1:{server.port}"


async def test_send_receive_and_ping(nursery: trio.Nursery) -> None:
    async def echo(websocket: trio_websocket.WebSocketConnection) -> None:
        await websocket.send_message(await websocket.get_message())
        await websocket.get_message()

    async with open_websocket(await websocket_server(nursery, echo)) as websocket:
        await websocket.ping()
        text = "é" * (MAX_MESSAGE_BYTES // 2)
        await websocket.send(text)
        assert await websocket.receive() == text


async def test_oversized_message_ends_the_connection(nursery: trio.Nursery) -> None:
    async def flood(websocket: trio_websocket.WebSocketConnection) -> None:
        await websocket.send_message("x" * (MAX_MESSAGE_BYTES + 1))
        with pytest.raises(trio_websocket.ConnectionClosed):
            await websocket.get_message()

    async with open_websocket(await websocket_server(nursery, flood)) as websocket:
        with pytest.raises(Unavailable, match="1009"):
            await websocket.receive()
        with pytest.raises(Unavailable):
            await websocket.send("x")
        with pytest.raises(Unavailable):
            await websocket.ping()


async def test_nobody_listens(nursery: trio.Nursery) -> None:
    with trio.socket.socket() as reserved:
        await reserved.bind(("127.0.0.1", 0))
        with pytest.raises(Unavailable, match=r"connect|refused"):
            await open_websocket(f"ws://127.0.0.1:{reserved.getsockname()[1]}").__aenter__()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\x00\xff" * 500,
        b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: wrong\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n",
    ],
)
async def test_server_that_speaks_no_websocket(nursery: trio.Nursery, answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "CONNECT_TIMEOUT_S", 0.3)

    async def handler(stream: trio.SocketStream) -> None:
        await stream.receive_some(4096)
        await stream.send_all(answer)
        await stream.aclose()

    url = await tcp_server(nursery, handler)
    with pytest.raises(Unavailable):
        await open_websocket(url).__aenter__()


@pytest.mark.parametrize(
    "frame", [b"\xff" * 100, b"\x81\x02\xff\xfe", b"\x83\x00", b"\x89\x7e\x01\x00" + b"x" * 256, b"\x88\x01x", b"\x00\x01x"]
)
async def test_broken_frames_end_the_connection(nursery: trio.Nursery, frame: bytes) -> None:
    async def handler(websocket: trio_websocket.WebSocketConnection) -> None:
        await websocket._stream.send_all(frame)
        with pytest.raises(trio_websocket.ConnectionClosed):
            await websocket.get_message()

    url = await websocket_server(nursery, handler)
    with pytest.raises(Unavailable):
        async with open_websocket(url) as websocket:
            await websocket.receive()


async def test_what_the_body_raises_passes_unchanged(nursery: trio.Nursery) -> None:
    async def handler(websocket: trio_websocket.WebSocketConnection) -> None:
        with pytest.raises(trio_websocket.ConnectionClosed):
            await websocket.get_message()

    with pytest.raises(LocalProtocolError, match="ours"):
        async with open_websocket(await websocket_server(nursery, handler)):
            raise LocalProtocolError("ours")


async def test_the_dial_that_was_handed_in_decides_where_to(nursery: trio.Nursery) -> None:
    async def echo(websocket: trio_websocket.WebSocketConnection) -> None:
        await websocket.send_message(await websocket.get_message())
        with pytest.raises(trio_websocket.ConnectionClosed):
            await websocket.get_message()

    url, asked = await websocket_server(nursery, echo), []

    async def elsewhere(host: str, port: int) -> trio.SocketStream:
        asked.append((host, port))
        if host == "inside.example":
            raise RemoteProtocolError("URL", "leads into a private network", whose=host)
        return await trio.open_tcp_stream("127.0.0.1", int(url.rpartition(":")[2]))

    async with websockets(elsewhere)("ws://outside.example/path") as websocket:
        await websocket.send("x")
        assert await websocket.receive() == "x"
    for inside in ("ws://inside.example:81", "wss://inside.example"):
        with pytest.raises(Unavailable, match="private network"):
            await websockets(elsewhere)(inside).__aenter__()
    assert asked == [("outside.example", 80), ("inside.example", 81), ("inside.example", 443)]
