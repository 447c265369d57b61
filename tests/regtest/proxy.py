"""A socket in front of a lightningd's, which can lose the reply to a method."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import msgspec
import trio


class LossyProxy:
    """Hands a request on and its reply back, one of each a connection. A reply in `lose` is waited for, then the connection breaks."""

    def __init__(self, path: Path, target: Path) -> None:
        self.path, self._target = path, target
        self.lose: Counter[str] = Counter()

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen until cancelled."""
        self.path.unlink(missing_ok=True)
        listening = trio.socket.socket(trio.socket.AF_UNIX)
        await listening.bind(str(self.path))
        listening.listen(128)
        async with trio.open_nursery() as nursery:
            task_status.started()
            await trio.serve_listeners(self._session, [trio.SocketListener(listening)], handler_nursery=nursery)

    async def _session(self, client: trio.SocketStream) -> None:
        async with client:
            try:
                request = await whole_request(client)
                server = await trio.open_unix_socket(self._target)
            except (EOFError, OSError, trio.BrokenResourceError):
                return  # as from a lightningd that is down: the connection ends
            lost = self.lose[msgspec.json.decode(request)["method"]] > 0
            async with server, trio.open_nursery() as nursery:
                nursery.start_soon(until_it_leaves, client, nursery.cancel_scope)
                try:
                    await server.send_all(request)
                    while chunk := await server.receive_some(65536):
                        if lost:
                            self.lose[msgspec.json.decode(request)["method"]] -= 1
                            break
                        await client.send_all(chunk)
                except trio.BrokenResourceError:
                    pass
                nursery.cancel_scope.cancel()


async def whole_request(client: trio.SocketStream) -> bytes:
    """One JSON object. Raises EOFError."""
    request = b""
    while chunk := await client.receive_some(65536):
        request += chunk
        try:
            msgspec.json.decode(request)
        except msgspec.DecodeError:
            continue
        return request
    raise EOFError


async def until_it_leaves(client: trio.SocketStream, scope: trio.CancelScope) -> None:
    """Cancel when the client closes its end: lightningd is told by ours."""
    try:
        await client.receive_some(1)
    except trio.BrokenResourceError:
        pass
    scope.cancel()
