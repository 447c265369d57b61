"""`perform`: what is tried again and how often, what is given up, what is final, what ends the process."""

from __future__ import annotations

import sqlite3
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from nostrain.core.effects import (
    Cancel,
    ChainLink,
    Compute,
    Computed,
    Credentials,
    Discard,
    Draw,
    Drawn,
    Effect,
    Failed,
    Fetch,
    FetchDataset,
    Fetched,
    HoldInvoice,
    LinkRead,
    Ok,
    OracleAttest,
    Pay,
    PayEnded,
    Send,
    Settle,
    Sign,
    Signed,
    Upload,
    Uploaded,
)
from nostrain.daemon.runners import FIRST_BACKOFF_S, LAST_BACKOFF_S, perform
from nostrain.errors import LocalProtocolError, OutcomeUnknown, RemoteProtocolError, Unavailable
from nostrain.hashes import sha256_hex
from nostrain.ports.lightning import PayResult
from nostrain.protocol.event import Draft
from nostrain.protocol.jobs import InspectJob, InspectResult
from nostrain.protocol.manifest import BlobRef
from nostrain.protocol.messages import Acknowledgement, VerdictHash
from nostrain.units import Digest, EventId, Msat, UnixTime
from tests.daemon.world import SIGNER, make_ports

WORD = Digest("ab" * 32)
BLOB = BlobRef(Digest("cd" * 32), 4, ("http://blobs.test/x",))
FETCH = Fetch(owner="duty/1", name="delta:cd", blob=BLOB, whose="worker-1")
MUST = Fetch(owner="replica", name="checkpoint", blob=BLOB, must=True)
EVENT = SIGNER.sign(Draft(created_at=UnixTime(1_750_000_000), kind=1, tags=(), content=""))
SEND = Send(owner="outbox/x", name="send", event=EVENT, recipient=None)
JOB = Compute(owner="replica", name="inspect", job=InspectJob("x", ()))
PAY = Pay(owner="payer/1", name="pay:0", bolt11="ln", payment_hash=WORD, amount_msat=Msat(1))
HOLD = HoldInvoice(owner="payee/1", name="invoice:0", payment_hash=WORD, amount_msat=Msat(1), min_final_cltv=80, expiry_s=60)


class Flaky:
    """Every port at once: each call takes the next of `answers`, the last one for ever, and raises it if it is an error."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)
        self.calls: list[float] = []

    def answer(self) -> Any:
        self.calls.append(trio.current_time())
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(found, BaseException):
            raise found
        return found

    async def get(self, *_: object) -> Any:
        await trio.lowlevel.checkpoint()
        return self.answer()

    put = publish = run = hold_invoice = pay = settle = cancel = get

    @property
    def waits(self) -> list[float]:
        """Seconds between one call and the next."""
        return [round(later - earlier, 3) for earlier, later in pairwise(self.calls)]


def blob_file(folder: Path, data: bytes = b"blob") -> Path:
    path = folder / "blob"
    path.write_bytes(data)
    return path


async def test_unavailable_is_tried_again_ever_more_slowly(tmp_path: Path, autojump_clock: MockClock) -> None:
    relays = Flaky(*[Unavailable("not now")] * 12, None)
    assert await perform(SEND, make_ports(tmp_path, relays=relays)) == Ok()
    assert relays.waits[:3] == [FIRST_BACKOFF_S, 2 * FIRST_BACKOFF_S, 4 * FIRST_BACKOFF_S]
    assert relays.waits[-1] == LAST_BACKOFF_S
    assert len(relays.calls) == 13


async def test_a_refusal_is_final(tmp_path: Path, autojump_clock: MockClock) -> None:
    relays = Flaky(RemoteProtocolError("event", "blocked: no"))
    assert await perform(SEND, make_ports(tmp_path, relays=relays)) == Failed("event: blocked: no")
    assert len(relays.calls) == 1


async def test_a_strangers_blob_is_asked_for_until_the_machines_withdraw_it(tmp_path: Path, autojump_clock: MockClock) -> None:
    blobs = Flaky(Unavailable("http://there: HTTP 404"))
    with trio.move_on_after(36_000) as scope:
        await perform(FETCH, make_ports(tmp_path, blobs=blobs))
    assert scope.cancelled_caught
    assert len(blobs.calls) > 1000


@pytest.mark.parametrize("effect", [MUST, FetchDataset(owner="replica", name="dataset", blob=BLOB)])
async def test_what_must_be_had_is_asked_for_for_ever(tmp_path: Path, effect: Effect, autojump_clock: MockClock) -> None:
    blobs = Flaky(RemoteProtocolError("blob", "other bytes"))
    with trio.move_on_after(36_000) as scope:
        await perform(effect, make_ports(tmp_path, blobs=blobs))
    assert scope.cancelled_caught
    assert len(blobs.calls) > 1000


async def test_what_must_be_had_is_taken_from_the_source_that_is_right(tmp_path: Path, autojump_clock: MockClock) -> None:
    blobs = Flaky(RemoteProtocolError("blob", "other bytes"), Unavailable("404"), blob_file(tmp_path))
    assert await perform(MUST, make_ports(tmp_path, blobs=blobs)) == Fetched(str(tmp_path / "blob"))


async def test_a_blob_of_another_size_than_promised_is_final(tmp_path: Path, autojump_clock: MockClock) -> None:
    blobs = Flaky(blob_file(tmp_path, b"longer"))
    outcome = await perform(MUST, make_ports(tmp_path, blobs=blobs))
    assert outcome == Failed(f"blob {BLOB.sha256[:8]} has 6 bytes, 4 were promised")
    assert len(blobs.calls) == 1


async def test_files_of_old_rounds_are_removed_but_for_those_that_are_named(tmp_path: Path, autojump_clock: MockClock) -> None:
    old = ["state-00002.safetensors", "lead-00003.safetensors", "00003-aabb.delta"]
    kept = ["00001-aabb.state", "state-00004.safetensors", "engine.lock", "notes-00001.txt"]
    work = tmp_path / "work"
    (work / "run").mkdir(parents=True)
    for name in old + kept:
        (work / name).write_bytes(b"x")
    ports = make_ports(tmp_path)
    await ports.blobs.put(blob_file(tmp_path), Digest(sha256_hex(b"blob")))
    local = await ports.blobs.get(Digest(sha256_hex(b"blob")), [f"http://blobs.test/{sha256_hex(b'blob')}"], 4)
    gone = Digest(sha256_hex(b"blob"))
    effect = Discard("retention", "3", blobs=(gone, WORD), owners=(), folder=str(work), last=3, keep=("00001-aabb.state",))
    for _ in range(2):
        assert await perform(effect, ports) == Ok()
        assert {path.name for path in work.iterdir()} == {"run", *kept}
        assert not local.exists()


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), sqlite3.OperationalError("disk is full")])
@pytest.mark.parametrize("effect", [MUST, Upload(owner="work/1", name="upload", blob=BLOB, path="x", servers=())])
async def test_our_own_full_disk_is_waited_for(tmp_path: Path, effect: Effect, error: Exception, autojump_clock: MockClock) -> None:
    good: object = blob_file(tmp_path) if effect is MUST else ("http://there/x",)
    blobs = Flaky(error, error, good)
    outcome = await perform(effect, make_ports(tmp_path, blobs=blobs))
    assert outcome in (Fetched(str(tmp_path / "blob")), Uploaded(("http://there/x",)))
    assert len(blobs.calls) == 3


async def test_a_file_that_changed_since_it_was_committed_ends_what_hangs_on_it(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Not the daemon, which would find the same file after a restart."""
    upload = Upload(owner="work/1", name="upload", blob=BLOB, path=str(blob_file(tmp_path)), servers=())
    outcome = await perform(upload, make_ports(tmp_path))
    assert isinstance(outcome, Failed)
    assert "is not the blob" in outcome.reason


class FullOracle:
    """An oracle whose journal cannot be written at first: it has promised nothing then."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.pubkey = SIGNER.pubkey

    def chain_link(self, run: str, length: int, index: int) -> Digest:
        if self.errors:
            raise self.errors.pop(0)
        return Digest(f"{length + index:064x}")


async def test_an_oracle_whose_disk_is_full_is_waited_for(tmp_path: Path, autojump_clock: MockClock) -> None:
    oracle = FullOracle(Unavailable("oracle journal: full"), sqlite3.OperationalError("disk I/O error"))
    effect = ChainLink(owner="duty/1", name="link", run=EventId(WORD), chain_length=5, index=1)
    assert await perform(effect, make_ports(tmp_path, oracle=oracle)) == LinkRead(Digest(f"{6:064x}"))
    assert oracle.errors == []


async def test_what_an_oracle_will_not_attest_is_silence(tmp_path: Path) -> None:
    """Another outcome was signed, or the journal was restored from a backup: the node says nothing, and lives."""

    class Refusing:
        pubkey = SIGNER.pubkey

        def attest(self, announcement: bytes, outcome: object) -> bytes:
            raise LocalProtocolError("oracle: nonce has signed 1, asked to sign 0")

    effect = OracleAttest(owner="duty/1", name="attest", outcomes=(("AAAA", SIGNER.pubkey, (1, 0)),))
    assert await perform(effect, make_ports(tmp_path, oracle=Refusing())) == Failed("oracle: nonce has signed 1, asked to sign 0")


async def test_an_engine_that_died_gets_its_job_again(tmp_path: Path, autojump_clock: MockClock) -> None:
    engine = Flaky(Unavailable("the engine process died"), InspectResult(WORD))
    assert await perform(JOB, make_ports(tmp_path, engine=engine)) == Computed(InspectResult(WORD))


async def test_a_job_that_the_engine_refuses_is_no_crash(tmp_path: Path, autojump_clock: MockClock) -> None:
    engine = Flaky(LocalProtocolError("training diverged"))
    outcome = await perform(JOB, make_ports(tmp_path, engine=engine))
    assert isinstance(outcome, Failed)
    assert "training diverged" in outcome.reason


async def test_a_payment_of_unknown_outcome_is_asked_after_and_never_ended_by_us(tmp_path: Path, autojump_clock: MockClock) -> None:
    lightning = Flaky(OutcomeUnknown("lost"), Unavailable("gone"), PayResult(WORD, None))
    assert await perform(PAY, make_ports(tmp_path, lightning=lightning)) == PayEnded(None)
    assert len(lightning.calls) == 3


@pytest.mark.parametrize(
    "effect",
    [HOLD, Settle(owner="payee/1", name="settle:0", preimage="00" * 32), Cancel(owner="payee/1", name="cancel:0", payment_hash=WORD)],
)
async def test_what_a_lightning_node_refuses_is_a_level_lost(tmp_path: Path, effect: Effect, autojump_clock: MockClock) -> None:
    """The payer chooses the hash: one that is in use must not end the payee's daemon."""
    lightning = Flaky(LocalProtocolError("the hash is in use"))
    assert await perform(effect, make_ports(tmp_path, lightning=lightning)) == Failed("the hash is in use")


@pytest.mark.parametrize(
    ("effect", "said"),
    [
        (HOLD, "no Lightning node"),
        (Credentials(owner="enrolment", name="credentials", run=EventId(WORD), chain_length=1), "no oracle"),
        (Send(owner="outbox/x", name="send", event=EVENT, recipient=SIGNER.pubkey), "no mail"),
    ],
)
async def test_an_effect_without_its_port_is_our_own_fault(tmp_path: Path, effect: Effect, said: str) -> None:
    with pytest.raises(LocalProtocolError, match=said):
        await perform(effect, make_ports(tmp_path))


async def test_what_we_sign_is_read_back_as_everybody_reads_it(tmp_path: Path) -> None:
    word = EventId(WORD)
    body = VerdictHash(run=word, announcement=word, round=1, receipt=word, digest=WORD)
    outcome = await perform(Sign(owner="outbox/x", name="sign", body=body, created_at=UnixTime(1_750_000_000)), make_ports(tmp_path))
    assert isinstance(outcome, Signed)
    assert outcome.message.body == body
    assert outcome.message.author == SIGNER.pubkey


async def test_what_nobody_would_read_is_not_said(tmp_path: Path) -> None:
    word = EventId(WORD)
    body = Acknowledgement(run=word, announcement=word, round=1, receipt=word, link=Digest("not hex"))
    with pytest.raises(LocalProtocolError, match="would be refused by everyone"):
        await perform(Sign(owner="outbox/x", name="sign", body=body, created_at=UnixTime(1_750_000_000)), make_ports(tmp_path))


async def test_entropy_is_as_long_as_asked_for(tmp_path: Path) -> None:
    first, second = [await perform(Draw(owner="x", name="y", size=32), make_ports(tmp_path)) for _ in range(2)]
    assert isinstance(first, Drawn)
    assert len(bytes.fromhex(first.data)) == 32
    assert first == second, "the fake stream of a fresh node is the same"


async def test_a_fetch_shares_the_world_with_the_fake_server(tmp_path: Path, autojump_clock: MockClock) -> None:
    """Upload and fetch through the contract-tested fake, end to end."""
    path = blob_file(tmp_path)
    ref = BlobRef(Digest(sha256_hex(b"blob")), 4)
    ports = make_ports(tmp_path)
    outcome = await perform(Upload(owner="w", name="u", blob=ref, path=str(path), servers=()), ports)
    assert isinstance(outcome, Uploaded)
    fetched = await perform(Fetch(owner="w", name="f", blob=BlobRef(ref.sha256, 4, outcome.urls)), ports)
    assert isinstance(fetched, Fetched)
    assert Path(fetched.path).read_bytes() == b"blob"


async def test_cancelling_stops_the_attempts(tmp_path: Path, autojump_clock: MockClock) -> None:
    relays = Flaky(Unavailable("not now"))
    with trio.move_on_after(10):
        await perform(SEND, make_ports(tmp_path, relays=relays))
    tried = len(relays.calls)
    await trio.sleep(1000)
    assert len(relays.calls) == tried
