"""Who may upload what to our blob server, and that a round does not depend on its uploaders' good will afterwards."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from nostrain.blobs.store import LOCAL
from nostrain.core.rows import NodeState, Round, Row, Run
from nostrain.daemon.clock import SystemClock
from nostrain.daemon.uploads import RunStore, RunUploads
from nostrain.errors import RemoteProtocolError
from nostrain.hashes import sha256_hex
from nostrain.protocol.manifest import BlobRef, RunManifest
from nostrain.protocol.messages import Commitment, Receipt, Reveal
from nostrain.units import Digest, EventId, Msat, Pubkey, UnixTime
from tests.daemon.examples import example

ME, LEAD, WORKER, RIVAL = (Pubkey(letter * 64) for letter in "1234")
ROUND, HEAD = EventId("a" * 64), EventId("b" * 64)
FIRST, SECOND = Digest("c" * 64), Digest("d" * 64)
LIMIT = 1000
COMMITTED = {EventId("5" * 64): (WORKER, UnixTime(1), example(Commitment)), EventId("6" * 64): (RIVAL, UnixTime(1), example(Commitment))}
RECEIPT = (EventId("7" * 64), msgspec.structs.replace(example(Receipt), commitments=(EventId("5" * 64),)))


def state(*, coordinator: Pubkey = ME, open_: bool = True, **fields: Any) -> NodeState:
    """A node in a run with one round, whose receipt pins WORKER but not RIVAL."""
    manifest = msgspec.structs.replace(example(RunManifest), max_delta_bytes=LIMIT)
    run = msgspec.structs.replace(
        example(Run), coordinator=coordinator, manifest=manifest, head=HEAD, announcements={HEAD: ROUND} if open_ else {}
    )
    defaults: dict[str, Any] = {"id": ROUND, "commitments": COMMITTED, "receipt": RECEIPT, "reveals": {}, "result": None}
    rows: dict[str, Row] = {"run": run, f"round/{ROUND}": msgspec.structs.replace(example(Round), **(defaults | fields))}
    return NodeState(rows)


def policy(now: NodeState, coordinator: Pubkey | None = None) -> RunUploads:
    made = RunUploads(ME, coordinator)
    made.state = lambda: now
    return made


def test_a_pinned_worker_may_upload_one_blob_of_an_open_round() -> None:
    asked = policy(state())
    assert asked.allow(WORKER, FIRST, LIMIT) is None
    assert asked.allow(WORKER, FIRST, LIMIT) is None, "asking with HEAD and then sending is one upload"
    assert asked.allow(WORKER, SECOND, 1) == f"you committed to one blob in this round, and it is {FIRST[:8]}"


def test_after_the_reveal_it_is_the_revealed_one() -> None:
    reveal = msgspec.structs.replace(example(Reveal), blob=BlobRef(SECOND, 5))
    asked = policy(state(reveals={WORKER: reveal}))
    assert asked.allow(WORKER, SECOND, 5) is None
    assert asked.allow(WORKER, FIRST, 5) is not None


def test_the_next_round_is_another_blob() -> None:
    asked = policy(state())
    assert asked.allow(WORKER, FIRST, 1) is None
    later = EventId("e" * 64)
    run = msgspec.structs.replace(example(Run), coordinator=ME, head=HEAD, announcements={HEAD: later})
    following = msgspec.structs.replace(example(Round), id=later, commitments=COMMITTED, receipt=RECEIPT, reveals={})
    asked.state = lambda: NodeState({"run": run, f"round/{later}": following})
    assert asked.allow(WORKER, SECOND, 1) is None


@pytest.mark.parametrize(
    ("now", "who", "size", "said"),
    [
        (NodeState(), WORKER, 1, "follows no run"),
        (state(), WORKER, LIMIT + 1, "limit of the run"),
        (state(), RIVAL, 1, "pins no commitment"),
        (state(), LEAD, 1, "pins no commitment"),
        (state(open_=False), WORKER, 1, "no round of the run is open"),
        (state(receipt=None), WORKER, 1, "pins no commitment"),
    ],
    ids=["no run", "too large", "not pinned", "a stranger", "between rounds", "before the receipt"],
)
def test_everybody_else_is_told_why_not(now: NodeState, who: Pubkey, size: int, said: str) -> None:
    reason = policy(now).allow(who, FIRST, size)
    assert reason is not None
    assert said in reason


def test_a_server_that_is_not_the_coordinators_may_learn_of_the_receipt_late() -> None:
    """A refusal is final for the worker, so a server that merely lags does not give one to somebody who committed."""
    lagging = policy(state(coordinator=LEAD, receipt=None))
    assert lagging.allow(WORKER, FIRST, 1) is None
    assert lagging.allow(RIVAL, FIRST, 1) is None
    assert policy(state(coordinator=LEAD)).allow(RIVAL, FIRST, 1) is not None


def test_we_ourselves_and_the_coordinator_that_we_follow_are_not_bounded_by_rounds() -> None:
    assert policy(NodeState()).allow(ME, FIRST, 1 << 40) is None
    assert policy(NodeState(), LEAD).allow(LEAD, FIRST, 1 << 40) is None, "its checkpoint comes before its manifest"
    assert policy(state(coordinator=LEAD, open_=False)).allow(LEAD, FIRST, 1 << 40) is None


def charged(now: NodeState, fee: int = 5) -> NodeState:
    """The same with a submission fee."""
    run = now.rows["run"]
    assert isinstance(run, Run)
    settlement = msgspec.structs.replace(run.manifest.settlement, mode="hold", fee_msat=Msat(fee))
    return NodeState(
        {**now.rows, "run": msgspec.structs.replace(run, manifest=msgspec.structs.replace(run.manifest, settlement=settlement))}
    )


@pytest.mark.parametrize(
    ("now", "who", "round_"),
    [
        (charged(state()), WORKER, ROUND),
        (charged(state()), ME, None),
        (charged(state()), LEAD, None),
        (charged(state(), 0), WORKER, None),
        (charged(state(coordinator=LEAD)), WORKER, None),
        (charged(state(open_=False)), WORKER, None),
        (NodeState(), WORKER, None),
    ],
    ids=["a worker", "ourselves", "no worker", "no fee", "another's run", "between rounds", "no run"],
)
def test_whose_upload_takes_the_rounds_ticket(now: NodeState, who: Pubkey, round_: EventId | None) -> None:
    rows = dict(now.rows)
    if isinstance(open_ := rows.get(f"round/{ROUND}"), Round):
        announcement = msgspec.structs.replace(open_.announcement, workers=(WORKER,))
        rows[f"round/{ROUND}"] = msgspec.structs.replace(open_, announcement=announcement)
    assert policy(NodeState(rows)).ticketed(who) == round_


async def chunks(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def test_an_uploader_cannot_take_its_delta_out_of_a_round(tmp_path: Path) -> None:
    """BUD-02 lets an owner delete; then everyone who has to fetch the delta would wait for ever."""
    store = RunStore(tmp_path, SystemClock())
    digest = Digest(sha256_hex(b"delta"))
    assert await store.put_stream(chunks(b"delta"), digest, 5, WORKER)
    assert await store.delete(digest, WORKER)
    path = store.path(digest)
    assert path is not None
    assert path.read_bytes() == b"delta"
    assert await store.usage(WORKER) == 0
    assert await store.delete(digest, LOCAL), "the node itself can let it go"
    store.close()


async def test_what_is_not_the_promised_blob_becomes_nobodys(tmp_path: Path) -> None:
    store = RunStore(tmp_path, SystemClock())
    digest = Digest(sha256_hex(b"delta"))
    with pytest.raises(RemoteProtocolError):
        await store.put_stream(chunks(b"other"), digest, 5, WORKER)
    assert store.path(digest) is None
    assert await store.usage(LOCAL) == 0
    store.close()
