"""The wire: framing, ids, error codes, and clients that break it or go away."""

from __future__ import annotations

import msgspec
import pytest
import trio

from tests.simnet.conftest import PATIENCE_S, Failed, World, replies


def request(number: object, method: str, params: object = None) -> bytes:
    return msgspec.json.encode({"jsonrpc": "2.0", "id": number, "method": method, "params": {} if params is None else params})


async def talk(world: World, *pieces: bytes, answers: int) -> list[dict[str, object]]:
    """Send the pieces one by one and read the replies."""
    async with await trio.open_unix_socket(world.path("c")) as stream:
        for piece in pieces:
            await stream.send_all(piece)
            await trio.testing.wait_all_tasks_blocked()
        return await replies(stream, answers)


async def test_requests_in_any_framing_are_answered_with_their_ids(world: World) -> None:
    text = request(1, "getinfo") + request("two", "getinfo", []) + b"\n\n \n" + request(3, "listfunds")
    found = await talk(world, text, answers=3)
    assert {reply["id"] for reply in found} == {1, "two", 3}
    assert all("result" in reply and reply["jsonrpc"] == "2.0" for reply in found)


async def test_a_request_may_come_byte_by_byte(world: World) -> None:
    text = request('"{]\\', "getinfo")
    found = await talk(world, *(text[at : at + 1] for at in range(len(text))), answers=1)
    assert [reply["id"] for reply in found] == ['"{]\\']


async def test_a_call_that_waits_does_not_hold_up_the_next(world: World) -> None:
    wait = request("slow", "waitblockheight", {"blockheight": world.network.height + 1})
    async with await trio.open_unix_socket(world.path("c")) as stream:
        await stream.send_all(wait + request("fast", "getinfo"))
        assert [reply["id"] for reply in await replies(stream, 1)] == ["fast"]
        await world.ask("simnet", "simnet-mine", blocks=1)
        assert (await replies(stream, 1))[0]["result"] == {"blockheight": world.network.height}


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b'{"id":1,"method":"getinfo","params":{}}', -32600),
        (b'{"jsonrpc":"2.0","method":"getinfo","params":{}}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":"getinfo"}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"params":{}}', -32600),
        (b"[1,2]", -32600),
        (b"{nonsense}", -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":"transfer","params":{}}', -32601),
        (b'{"jsonrpc":"2.0","id":1,"method":"getinfo","params":{"x":1}}', -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"getinfo","params":[1]}', -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"waitsendpay","params":{}}', -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"signinvoice","params":["lnbc1"]}', -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"settleholdinvoice","params":{}}', -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"settleholdinvoice","params":{"preimage":"0"}}', -32700),
    ],
)
async def test_errors_have_lightningds_codes(world: World, text: bytes, code: int) -> None:
    found = await talk(world, text, answers=1)
    assert found[0]["error"]["code"] == code  # type: ignore[index]


async def test_a_client_that_leaves_takes_nothing_with_it(world: World) -> None:
    preimage, invoice = await world.held_invoice("w", 1_000)
    await world.send("c", invoice)
    async with await trio.open_unix_socket(world.path("c")) as stream:
        await stream.send_all(request(1, "waitsendpay", {"payment_hash": invoice["payment_hash"]}) + b'{"half')
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.wait, "c", invoice)
        await world.ask("w", "settleholdinvoice", preimage=preimage)
    assert (await world.wait("c", invoice))["payment_preimage"] == preimage


async def test_a_request_without_end_is_hung_up_on(world: World) -> None:
    async def send_without_end() -> None:
        async with await trio.open_unix_socket(world.path("c")) as stream:
            while True:
                await stream.send_all(b'{"' + b"x" * 100_000)

    with trio.fail_after(PATIENCE_S), pytest.raises(trio.BrokenResourceError):
        await send_without_end()
    assert (await world.ask("c", "getinfo"))["alias"] == "simnet-c"


async def test_it_says_what_it_is(world: World) -> None:
    info = await world.ask("w", "getinfo")
    assert info["network"] == "regtest"
    assert "simnet" in info["alias"]
    assert "simnet" in info["version"]
    with pytest.raises(Failed, match="prefix bc is not for this network"):
        await world.ask(
            "w",
            "xpay",
            invstring="lnbc2500u1pvjluezsp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygspp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdq5xysxxatsyp3k7enxv4jsxqzpu9qrsgquk0rl77nj30yxdy8j9vdx85fkpmdla2087ne0xh8nhedh8w27kyke0lp53ut353s06fv3qfegext0eh0ymjpf39tuven09sam30g4vgpfna3rh",
        )
