"""JSON-RPC 2.0 as lightningd speaks it on its Unix socket: requests one after another in any framing, replies followed by an empty line.

The requests of one connection run at the same time and are answered as they finish. When the client closes its side, what still waits is
dropped; what was done stays done.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, Final

import msgspec
import trio

from nostrain.devnet.simnet.nodes import Faults

INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
PLUGIN_FAILURE: Final = -32700
"""What cln-plugin answers when a method of a Rust plugin fails."""
MAX_REQUEST: Final = 4 << 20
REPLY_END: Final = b"\n\n"

Json = dict[str, Any]
Handler = Callable[[Any], Json | Awaitable[Json]]


class RpcFailure(Exception):
    """A method's error: `code` and `message` as lightningd gives them, `data` where it has some."""

    def __init__(self, code: int, message: str, data: Json | None = None) -> None:
        self.code, self.data = code, data
        super().__init__(message)


class Method(msgspec.Struct, frozen=True):
    """A method: the struct of its parameters, in the order that they have in a list, and what it does. `plugin`: it is not lightningd's own."""

    params: type[msgspec.Struct]
    run: Handler
    plugin: bool = False

    def arguments(self, params: object) -> Any:
        """The parameters, by name or by position. Raises RpcFailure as lightningd or as a Rust plugin would."""
        names = [field.name for field in msgspec.structs.fields(self.params)]
        if isinstance(params, list):
            if len(params) > len(names):
                raise RpcFailure(INVALID_PARAMS, f"too many parameters: got {len(params)}, expected {len(names)}")
            params = dict(zip(names, params, strict=False))
        if not isinstance(params, dict):
            raise RpcFailure(INVALID_REQUEST, "Invalid params")
        given = {name: value for name, value in params.items() if value is not None}
        unknown = given.keys() - set(names)
        if unknown and not self.plugin:
            raise RpcFailure(INVALID_PARAMS, f"unknown parameter: {min(unknown)}")
        try:
            return msgspec.convert(given, self.params, strict=False)
        except msgspec.ValidationError as error:
            raise RpcFailure(PLUGIN_FAILURE if self.plugin else INVALID_PARAMS, str(error)) from None


class Dropped(Exception):
    """A fault: this connection ends here."""


async def answer(request: object, methods: Mapping[str, Method], faults: Faults) -> Json:
    """The reply to one request. Raises Dropped."""
    reply: Json = {"jsonrpc": "2.0", "id": None}
    try:
        if not isinstance(request, dict) or request.get("jsonrpc") != "2.0" or "id" not in request:
            raise RpcFailure(INVALID_REQUEST, 'jsonrpc: "2.0" must be specified in the request')
        reply["id"] = request["id"]
        name = request.get("method")
        if not isinstance(name, str) or "params" not in request:
            raise RpcFailure(INVALID_REQUEST, "No params" if isinstance(name, str) else "No method")
        while faults.stalled:
            await faults.resumed.wait()
        spend(faults.lose_requests, name)
        if name not in methods:
            raise RpcFailure(METHOD_NOT_FOUND, f"Unknown command '{name}'")
        method = methods[name]
        result = method.run(method.arguments(request["params"]))
        spend(faults.lose_replies, name)
        reply["result"] = result if isinstance(result, dict) else await result
    except RpcFailure as error:
        reply["error"] = {"code": error.code, "message": str(error)} | ({} if error.data is None else {"data": error.data})
    return reply


def spend(counter: dict[str, int], name: str) -> None:
    """Use up one injected fault of this method, if there is any."""
    if counter.get(name, 0) > 0:
        counter[name] -= 1
        raise Dropped


async def serve_client(stream: trio.abc.Stream, methods: Mapping[str, Method], faults: Faults) -> None:
    """Answer one client until it goes, breaks the framing or a fault drops it."""
    lock = trio.Lock()

    async def respond(request: object) -> None:
        try:
            reply = await answer(request, methods, faults)
        except Dropped:
            nursery.cancel_scope.cancel()
            return
        async with lock:
            try:
                await stream.send_all(msgspec.json.encode(reply) + REPLY_END)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                nursery.cancel_scope.cancel()

    buffer = bytearray()
    async with stream, trio.open_nursery() as nursery:
        while True:
            try:
                chunk = await stream.receive_some(65536)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                chunk = b""
            buffer += chunk
            if not chunk or len(buffer) > MAX_REQUEST:
                nursery.cancel_scope.cancel()
                return
            for text in take_objects(buffer):
                try:
                    nursery.start_soon(respond, msgspec.json.decode(text))
                except (msgspec.DecodeError, UnicodeDecodeError):
                    nursery.start_soon(respond, None)


def take_objects(buffer: bytearray) -> Iterator[bytes]:
    """Cut whole top-level JSON objects off the front of `buffer`, whatever stands between them."""
    depth, start, end, quoted, escaped = 0, 0, 0, False, False
    found = []
    for at, byte in enumerate(buffer):
        if quoted:
            quoted, escaped = escaped or byte != 0x22, not escaped and byte == 0x5C
        elif byte == 0x22:
            quoted = True
        elif byte in b"{[":
            start = at if depth == 0 else start
            depth += 1
        elif byte in b"}]":
            depth -= 1
            if depth <= 0:
                found.append(bytes(buffer[start : at + 1]))
                depth, end = 0, at + 1
    del buffer[:end]
    return iter(found)
