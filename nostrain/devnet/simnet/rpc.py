"""JSON-RPC 2.0 as lightningd speaks it on its Unix socket: requests one after another in any framing, replies followed by an empty line.

The requests of one connection run at the same time and are answered as they finish. When the client closes its side, what still waits is
dropped; what was done stays done.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

import msgspec
import trio

from nostrain.devnet.simnet.nodes import Faults

INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
PLUGIN_FAILURE: Final = -32700
"""What cln-plugin answers when a method of a Rust plugin fails."""
MAX_REQUEST: Final = 1 << 20
REPLY_END: Final = b"\n\n"

Json = dict[str, Any]
Handler = Callable[[Any], Json | Coroutine[Any, Any, Json]]
"""A method. What it changes it changes when it is called; only waiting for a result is left to the coroutine."""


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
            params = {name: value for name, value in zip(names, params, strict=False) if value is not None}
        if not isinstance(params, dict):
            raise RpcFailure(INVALID_REQUEST, "Invalid params")
        # In a list, null stands for a parameter that is left out; by name, lightningd takes it for a value, and a wrong one.
        wrong = [name for name, value in params.items() if value is None and name in names]
        if wrong and not self.plugin:
            raise RpcFailure(INVALID_PARAMS, f"{wrong[0]}: invalid token 'null'")
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
        if spend(faults.lose_requests, name):
            raise Dropped
        if name not in methods:
            raise RpcFailure(METHOD_NOT_FOUND, f"Unknown command '{name}'")
        method = methods[name]
        result = method.run(method.arguments(request["params"]))
        if spend(faults.lose_replies, name):
            if not isinstance(result, dict):
                result.close()
            raise Dropped
        reply["result"] = result if isinstance(result, dict) else await result
    except RpcFailure as error:
        reply["error"] = {"code": error.code, "message": str(error)} | ({} if error.data is None else {"data": error.data})
    return reply


def spend(counter: dict[str, int], name: str) -> bool:
    """Use up one injected fault of this method; False if there is none."""
    if counter.get(name, 0) == 0:
        return False
    counter[name] -= 1
    return True


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

    splitter = Splitter()
    async with stream, trio.open_nursery() as nursery:
        while True:
            try:
                chunk = await stream.receive_some(65536)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                chunk = b""
            if not chunk or splitter.waiting > MAX_REQUEST:
                nursery.cancel_scope.cancel()
                return
            for text in splitter.feed(chunk):
                try:
                    nursery.start_soon(respond, msgspec.json.decode(text))
                except (msgspec.DecodeError, UnicodeDecodeError):
                    nursery.start_soon(respond, None)


class Splitter:
    """Cuts whole top-level JSON values off a stream of bytes, whatever stands between them."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._at = self._start = self._depth = 0
        self._quoted = self._escaped = False

    def feed(self, chunk: bytes | bytearray) -> list[bytes]:
        """The values that `chunk` completes."""
        self._buffer += chunk
        found = []
        while self._at < len(self._buffer):
            byte = self._buffer[self._at]
            self._at += 1
            if self._quoted:
                self._quoted, self._escaped = self._escaped or byte != 0x22, not self._escaped and byte == 0x5C
            elif byte == 0x22:
                self._quoted = True
            elif byte in b"{[":
                self._start = self._at - 1 if self._depth == 0 else self._start
                self._depth += 1
            elif byte in b"}]":
                self._depth -= 1
                if self._depth <= 0:
                    found.append(bytes(self._buffer[self._start : self._at]))
                    del self._buffer[: self._at]
                    self._at = self._start = self._depth = 0
        return found

    @property
    def waiting(self) -> int:
        """Bytes of a value that is not whole yet."""
        return len(self._buffer)
