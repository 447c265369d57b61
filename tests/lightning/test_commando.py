"""Methods by rune: the same promises as on the Unix socket, over a connection that breaks in every way."""

from __future__ import annotations

import pickle
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.lowlevel
import trio.testing
from pyln.proto.primitives import PrivateKey

from nostrain.errors import LocalProtocolError, NostrainError, OutcomeUnknown, Unavailable
from nostrain.lightning import commando
from nostrain.lightning.commando import ERROR, MAX_REQUEST, PING, PONG, REPLY_ENDS, Commando, NodeAddress, Rune, open_commando
from nostrain.lightning.noise import Broken, Cipher, NoiseStream
from nostrain.lightning.replies import GetInfo
from nostrain.lightning.rpc import ClnError
from tests.lightning.commando_bridge import RUNE, CommandoBridge, reply
from tests.lightning.scripted_node import INFO, NODE_ID, ScriptedNode, fail, hang, say

PATIENCE_S = 10
SHORT_S = 0.2
Session = Callable[[NoiseStream], Awaitable[None]]


@asynccontextmanager
async def bridged(target: Path, session: Session | None = None, allowed: set[str] | None = None) -> AsyncIterator[CommandoBridge]:
    """A node that speaks commando; with `session`, that is what it does with every connection, after init."""
    bridge = CommandoBridge(target, allowed)
    if session is not None:

        async def instead(noise: NoiseStream) -> None:
            await noise.send(struct.pack("!HHH", commando.INIT, 0, 0))
            await noise.receive()
            await session(noise)

        bridge.session = instead  # type: ignore[method-assign]
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            await nursery.start(bridge.serve)
            yield bridge
            nursery.cancel_scope.cancel()


async def getinfo(rpc: Commando, timeout_s: float | None = PATIENCE_S) -> GetInfo:
    return await rpc.call("getinfo", {}, GetInfo, timeout_s=timeout_s)


async def asked(session: Session, timeout_s: float | None = PATIENCE_S) -> GetInfo:
    """What a call comes to; an error is raised outside of the bridge's nursery, which would wrap it."""
    raised: list[Exception] = []
    async with bridged(Path("nowhere"), session) as bridge, open_commando(bridge.address, Rune(RUNE)) as rpc:
        try:
            return await getinfo(rpc, timeout_s)
        except NostrainError as error:
            raised.append(error)
    raise raised[0]


async def test_calls_have_their_replies_on_one_connection_after_another(node: ScriptedNode) -> None:
    node.script("getinfo", say(INFO), fail(203, "nobody there"), say(INFO | {"alias": "long" * 40_000}))
    async with bridged(node.path) as bridge, open_commando(bridge.address, Rune(RUNE)) as rpc:
        assert (await getinfo(rpc)).id == NODE_ID
        with pytest.raises(ClnError, match=r"getinfo: nobody there \(code 203\)"):
            await getinfo(rpc)
        assert (await getinfo(rpc)).alias == "long" * 40_000, "in three messages"
    assert bridge.connections == 1
    assert "rune" not in node.asked[0]


async def test_a_call_that_waits_is_in_nobodys_way(node: ScriptedNode) -> None:
    node.script("wait", hang)
    node.script("getinfo", say(INFO))
    async with bridged(node.path) as bridge, open_commando(bridge.address, Rune(RUNE)) as rpc, trio.open_nursery() as nursery:
        nursery.start_soon(lambda: rpc.call("wait", {}, dict, timeout_s=None))
        while not node.asked:
            await trio.lowlevel.checkpoint()
        assert (await getinfo(rpc)).id == NODE_ID
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("text", ["another rune", RUNE])
async def test_what_the_rune_does_not_allow_was_not_done(node: ScriptedNode, text: str) -> None:
    async with bridged(node.path, allowed=set()) as bridge, open_commando(bridge.address, Rune(text)) as rpc:
        with pytest.raises(Unavailable, match=r"^getinfo: Invalid rune"):
            await getinfo(rpc)
    assert not node.asked


async def test_a_node_that_is_not_there_or_another_one_was_asked_nothing(node: ScriptedNode) -> None:
    other = PrivateKey(b"\x22" * 32).public_key().serializeCompressed().hex()
    async with bridged(node.path) as bridge:
        wrong = [bridge.address._replace(node_id=other), bridge.address._replace(node_id="02" + "11" * 32), bridge.address._replace(port=1)]
        for address, reason in zip(wrong, ["is not the node|another node", "the id of no node", "does not answer"], strict=True):
            async with open_commando(address, Rune(RUNE)) as rpc:
                with pytest.raises(Unavailable, match=reason):
                    await getinfo(rpc)
    assert not node.asked


async def test_a_connection_that_is_lost_after_the_request_leaves_the_outcome_unknown() -> None:
    async def hang_up(noise: NoiseStream) -> None:
        await noise.receive()

    with pytest.raises(OutcomeUnknown, match="the connection was lost before the reply: lightningd hung up"):
        await asked(hang_up)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (struct.pack("!H", ERROR) + bytes(32) + b"\x00\x02no", "lightningd says: no"),
        (b"\x00", "half a message"),
        (struct.pack("!H", PING), "half a message"),
        (struct.pack("!HQ", REPLY_ENDS, 1) + b"{}", "another request"),
        (struct.pack("!HQ", REPLY_ENDS, 1) + b"[" * 100_000, "cannot be read"),
    ],
)
async def test_anything_but_a_proper_reply_leaves_the_outcome_unknown(message: bytes, reason: str) -> None:
    async def answer(noise: NoiseStream) -> None:
        await noise.receive()
        await noise.send(message[:65_000])

    with pytest.raises(OutcomeUnknown, match=reason):
        await asked(answer)


async def test_a_reply_without_end_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commando, "MAX_REPLY", 1 << 17)

    async def drone(noise: NoiseStream) -> None:
        await noise.receive()
        while True:
            await noise.send(struct.pack("!HQ", commando.REPLY_CONTINUES, 1) + bytes(60_000))

    with pytest.raises(OutcomeUnknown, match="more than 131072 bytes"):
        await asked(drone)


async def test_other_messages_are_passed_over_and_pings_answered() -> None:
    said: list[bytes] = []

    async def chat(noise: NoiseStream) -> None:
        request = await noise.receive()
        await noise.send(struct.pack("!HHH", PING, 3, 0), struct.pack("!HHH", PING, 65_535, 0), struct.pack("!HH", 265, 0))
        await noise.send(struct.pack("!HQ", REPLY_ENDS, 77) + b"{}")
        said.append(await noise.receive())
        await reply(
            noise, request[2:10], b'{"id":"nostrain:getinfo#1","result":{"id":"a","blockheight":1,"network":"regtest","version":"v"}}'
        )
        await noise.receive()

    assert (await asked(chat)).id == "a"
    assert said == [struct.pack("!HH", PONG, 3) + bytes(3)], "and none to the one that wants none"


async def test_a_node_that_says_nothing_is_given_up() -> None:
    async def hang_on(noise: NoiseStream) -> None:
        while True:
            await noise.receive()

    with pytest.raises(OutcomeUnknown, match=r"no reply in 0\.2 s"):
        await asked(hang_on, SHORT_S)


async def test_a_connection_that_answers_no_ping_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commando, "QUIET_S", 0.02)
    heard: list[int] = []

    async def hang_on(noise: NoiseStream) -> None:
        while True:
            heard.append(int.from_bytes((await noise.receive())[:2], "big"))

    with pytest.raises(OutcomeUnknown, match="silent"):
        await asked(hang_on, None)
    assert heard == [commando.REQUEST_ENDS, PING]


async def test_what_was_idle_for_long_is_not_used_again(node: ScriptedNode, monkeypatch: pytest.MonkeyPatch) -> None:
    node.script("getinfo", say(INFO))
    monkeypatch.setattr(commando, "IDLE_S", -1.0)
    async with bridged(node.path) as bridge, open_commando(bridge.address, Rune(RUNE)) as rpc:
        for _ in range(2):
            await getinfo(rpc)
    assert bridge.connections == 2


async def test_a_node_that_was_restarted_is_asked_on_a_new_connection(node: ScriptedNode) -> None:
    """What lightningd closed while nobody asked anything must not cost the next call."""
    node.script("getinfo", say(INFO))
    async with bridged(node.path) as bridge, open_commando(bridge.address, Rune(RUNE)) as rpc:
        await getinfo(rpc)
        bridge.hang_up()
        assert (await getinfo(rpc)).id == NODE_ID
    assert bridge.connections == 2


async def test_a_request_that_lightningd_would_drop_is_not_made(node: ScriptedNode) -> None:
    async with open_commando(NodeAddress("02" * 33, "127.0.0.1", 1), Rune(RUNE)) as rpc:
        with pytest.raises(LocalProtocolError, match="1048576 bytes"):
            await rpc.call("decode", {"string": "x" * MAX_REQUEST}, GetInfo, timeout_s=None)


async def test_a_request_of_several_messages_arrives(node: ScriptedNode) -> None:
    node.script("decode", say(INFO))
    async with bridged(node.path) as bridge, open_commando(bridge.address, Rune(RUNE)) as rpc:
        await rpc.call("decode", {"string": "x" * 500_000}, GetInfo, timeout_s=None)
    assert len(node.asked[0]["params"]["string"]) == 500_000


def test_a_rune_does_not_show() -> None:
    assert RUNE not in repr(Rune(RUNE))
    with pytest.raises(TypeError):
        pickle.dumps(Rune(RUNE))


def test_keys_rotate_as_in_the_vectors_of_bolt_8() -> None:
    """BOLT 8, "Message Encryption Tests": `hello` sent 1002 times."""
    chaining = bytes.fromhex("919219dbb2920afa8db80f9a51787a840bcf111ed8d588caf9ab4be716e42b01")
    key = bytes.fromhex("969ab31b4d288cedf6218839b27a3e2140827047f2c0f01bf5c04435d43511a9")
    vectors: dict[int, Any] = {
        0: "cf2b30ddf0cf3f80e7c35a6e6730b59fe802473180f396d88a8fb0db8cbcf25d2f214cf9ea1d95",
        1: "72887022101f0b6753e0c7de21657d35a4cb2a1f5cde2650528bbc8f837d0f0d7ad833b1a256a1",
        500: "178cb9d7387190fa34db9c2d50027d21793c9bc2d40b1e14dcf30ebeeeb220f48364f7a4c68bf8",
        501: "1b186c57d44eb6de4c057c49940d79bb838a145cb528d6e8fd26dbe50a60ca2c104b56b60e45bd",
        1000: "4a2f3cc3b5e78ddb83dcb426d9863d9d9a723b0337c89dd0b005d89f8d3c05c52b76b29b740f09",
        1001: "2ecd8c8a5629d0d02ab457a0fdd0f7b90a192cd46be5ecb6ca570bfc5e268338b1a16cf4ef2d36",
    }
    sending, receiving = Cipher(key, chaining), Cipher(key, chaining)
    for number in range(1002):
        sealed = [sending.seal(struct.pack("!H", 5)), sending.seal(b"hello")]
        if number in vectors:
            assert b"".join(sealed).hex() == vectors[number], number
        assert [receiving.open(part) for part in sealed] == [b"\x00\x05", b"hello"]
    with pytest.raises(Broken):
        receiving.open(sealed[1])
