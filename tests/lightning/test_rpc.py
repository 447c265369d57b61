"""The JSON-RPC client against a lightningd that breaks every rule."""

from __future__ import annotations

import contextlib
import json
import socket
from pathlib import Path
from typing import Any

import pytest
import trio

from nostrain.errors import OutcomeUnknown, Unavailable
from nostrain.lightning import rpc
from nostrain.lightning.replies import GetInfo
from nostrain.lightning.rpc import ClnError, ClnRpc
from tests.lightning.scripted_node import INFO, NODE_ID, Act, ScriptedNode, fail, hang, say, send

PATIENCE_S = 10
SHORT_S = 0.05


async def getinfo(node: ScriptedNode, timeout_s: float | None = PATIENCE_S) -> GetInfo:
    with trio.fail_after(PATIENCE_S):
        return await ClnRpc(node.path).call("getinfo", {}, GetInfo, timeout_s=timeout_s)


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (send(), "hung up before its reply"),
        (send(b'{"jsonrpc":"2.0","id":$ID,"resu'), "hung up in its reply"),
        (send(b'{"jsonrpc":"2.0","id":$ID,"result":{"id":"x"}}\n'), "hung up in its reply"),
        (send(b'{"jsonrpc":"2.0","id":$ID,"result":{"id"\n\n'), "cannot be read"),
        (send(b"\n\n"), "cannot be read"),
        (send(b"hello\n\n"), "cannot be read"),
        (send(b'{"id":$ID,"result":"\xff"}\n\n'), "cannot be read"),
        (send(b"[" * 100_000 + b"\n\n"), "cannot be read"),
        (send(b'{"id":$ID,"result":' + b'{"a":' * 100_000 + b"\n\n"), "cannot be read"),
        (send(b'{"id":"another","result":{}}\n\n'), "another request"),
        (send(b'{"id":null,"error":{"code":-32600,"message":"x"}}\n\n'), "another request"),
        (send(b'{"id":$ID}\n\n'), "neither result nor error"),
        (say({}), "cannot be read"),
        (say(None), "cannot be read"),
        (say(INFO | {"blockheight": "many"}), "cannot be read"),
    ],
)
async def test_anything_but_a_proper_reply_leaves_the_outcome_unknown(node: ScriptedNode, act: Act, reason: str) -> None:
    node.script("getinfo", act)
    with pytest.raises(OutcomeUnknown, match=rf"^getinfo: .*{reason}"):
        await getinfo(node)


async def test_a_node_that_says_nothing_is_given_up(node: ScriptedNode) -> None:
    node.script("getinfo", hang)
    with pytest.raises(OutcomeUnknown, match=r"no reply in 0\.05 s"):
        await getinfo(node, SHORT_S)


async def test_a_reply_without_end_is_not_read_to_its_end(node: ScriptedNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc, "MAX_REPLY", 1 << 20)

    async def drone(stream: trio.SocketStream, request: dict[str, Any]) -> None:
        while True:
            await stream.send_all(b'{"x":' * 10_000)

    node.script("getinfo", drone)
    with pytest.raises(OutcomeUnknown, match="more than 1048576 bytes"):
        await getinfo(node)


async def test_a_reply_may_come_in_any_pieces(node: ScriptedNode) -> None:
    text = (
        b'{\n  "jsonrpc": "2.0",\n  "id": $ID,\n  "result": {"id":"a\\n\\nb","blockheight":1,"network":"regtest","version":"v","new":{}}\n}'
    )
    node.script("getinfo", send(text[:40], text[40:90], text[90:], b"\n", b"\n{"), send(text + b"\n\nmore\n\n"))
    for _ in range(2):
        assert await getinfo(node) == GetInfo("a\n\nb", 1, "regtest", "v")  # type: ignore[arg-type]


async def test_an_error_keeps_its_code(node: ScriptedNode) -> None:
    node.script("getinfo", fail(203, "nobody there"), send(b'{"id":$ID,"error":{"message":"old"}}\n\n'))
    with pytest.raises(ClnError, match=r"getinfo: nobody there \(code 203\)") as first:
        await getinfo(node)
    assert first.value.code == 203
    with pytest.raises(ClnError) as second:
        await getinfo(node)
    assert second.value.code == -1


async def test_a_node_that_is_not_there_was_asked_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "nothing", tmp_path / "file", tmp_path / ("x" * 200)):
        with pytest.raises(Unavailable, match="does not answer"):
            await ClnRpc(path).call("getinfo", {}, GetInfo, timeout_s=1)


async def test_a_request_that_was_not_sent_whole_was_not_made(tmp_path: Path) -> None:
    path = tmp_path / "lightning-rpc"
    listening = trio.socket.socket(trio.socket.AF_UNIX)
    await listening.bind(str(path))
    listening.listen(1)

    async def hang_up() -> None:
        connection, _ = await listening.accept()
        connection.close()

    with trio.fail_after(PATIENCE_S), listening:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hang_up)
            with pytest.raises(Unavailable, match="before it had the request"):
                await ClnRpc(path).call("decode", {"string": "x" * 10_000_000}, GetInfo, timeout_s=None)


async def test_a_node_that_takes_no_request_was_asked_nothing(tmp_path: Path) -> None:
    path = tmp_path / "lightning-rpc"
    listening = trio.socket.socket(trio.socket.AF_UNIX)
    await listening.bind(str(path))
    listening.listen(1)
    with trio.fail_after(PATIENCE_S), listening, pytest.raises(Unavailable, match="takes no request"):
        await ClnRpc(path).call("decode", {"string": "x" * 10_000_000}, GetInfo, timeout_s=SHORT_S)


async def test_calls_run_side_by_side_and_let_go_when_cancelled(node: ScriptedNode) -> None:
    node.script("getinfo", hang)
    node.crowd_size = 2 * rpc.CONNECTING
    client = ClnRpc(node.path)
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            for _ in range(node.crowd_size):
                nursery.start_soon(lambda: client.call("getinfo", {}, GetInfo, timeout_s=None))
            await node.crowd.wait()
            nursery.cancel_scope.cancel()
        node.script("getinfo", say(INFO))
        assert (await client.call("getinfo", {}, GetInfo, timeout_s=None)).id == NODE_ID
        while node.connections:
            await trio.lowlevel.checkpoint()
    assert len({request["id"] for request in node.asked}) == len(node.asked)


async def test_a_full_queue_of_connections_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "lightning-rpc"
    listening = trio.socket.socket(trio.socket.AF_UNIX)
    await listening.bind(str(path))
    listening.listen(1)
    queued: list[socket.socket] = []
    with trio.fail_after(PATIENCE_S), listening, contextlib.ExitStack() as stack:
        with contextlib.suppress(BlockingIOError):
            while True:
                queued.append(stack.enter_context(socket.socket(socket.AF_UNIX)))
                queued[-1].setblocking(False)
                queued[-1].connect(str(path))
        with pytest.raises(Unavailable, match="takes no request"):
            await ClnRpc(path).call("getinfo", {}, GetInfo, timeout_s=SHORT_S)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: ClnRpc(path).call("getinfo", {}, GetInfo, timeout_s=None))
            for _ in queued:
                connection, _ = await listening.accept()
                stack.enter_context(connection)
            request = json.loads(await connection.recv(65536))
            assert request["method"] == "getinfo"
            await connection.send(json.dumps({"id": request["id"], "result": INFO}).encode() + b"\n\n")
