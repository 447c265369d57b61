"""What of a response counts as delivered: the pieces that the connection took before the peer hung up."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing
from starlette.responses import FileResponse, JSONResponse
from starlette.types import Message, Receive, Scope, Send

from nostrain.blobs.metered import Metered

SCOPE: Scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "http_version": "1.1", "asgi": {"spec_version": "2.3"}}


class Passage:
    """Notes how it was finished."""

    def __init__(self) -> None:
        self.finished: list[int | None] = []

    async def finish(self, moved: int | None) -> None:
        await trio.lowlevel.checkpoint()
        self.finished.append(moved)


class Peer:
    """A connection whose peer hangs up during its `leaves_at`th piece of the body; the host says so also at the regular end."""

    def __init__(self, leaves_at: int | None = None) -> None:
        self._leaves_at, self._left = leaves_at, trio.Event()
        self.pieces = 0

    async def receive(self) -> Message:
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        await trio.lowlevel.checkpoint()
        if message["type"] == "http.response.body":
            self.pieces += 1
            if self.pieces == self._leaves_at or not message.get("more_body", False):
                self._left.set()
                await trio.testing.wait_all_tasks_blocked()


class Pieces(FileResponse):
    chunk_size = 10


@pytest.mark.parametrize(("leaves_at", "moved"), [(None, 35), (1, 0), (2, 10), (3, 20), (4, 35)])
async def test_counts_what_went_out(tmp_path: Path, leaves_at: int | None, moved: int) -> None:
    path = tmp_path / "blob"
    path.write_bytes(bytes(35))
    passage, peer = Passage(), Peer(leaves_at)
    await Metered(Pieces(path), passage)(SCOPE, peer.receive, peer.send)
    assert passage.finished == [moved]


async def test_an_answer_in_one_piece_counts() -> None:
    passage, peer = Passage(), Peer()
    await Metered(JSONResponse([]), passage)(SCOPE, peer.receive, peer.send)
    assert passage.finished == [2]


async def test_is_finished_also_when_the_response_fails_or_is_cancelled() -> None:
    async def fail(scope: Scope, receive: Receive, send: Send) -> None:
        raise OSError("the disk is gone")

    passage, peer = Passage(), Peer()
    with pytest.raises(OSError, match="the disk is gone"):
        await Metered(fail, passage)(SCOPE, peer.receive, peer.send)
    assert passage.finished == [0]
    with trio.CancelScope() as scope:
        scope.cancel()
        await Metered(JSONResponse([]), passage)(SCOPE, peer.receive, peer.send)
    assert len(passage.finished) == 2
