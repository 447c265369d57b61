"""Uploads on a ticket: what is let in, what is not and with which status, and that a ticket is good for one blob, also in a race."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from nostrain.crypto.caveats import narrowed_to
from nostrain.crypto.macaroon import add_caveat
from nostrain.errors import ConfigError, Unavailable
from nostrain.http.first_use import SqliteFirstUse
from nostrain.http.l402_client import TicketClient
from nostrain.http.ticket_gate import REMEMBERED_S, TicketGate
from nostrain.keys.signer import NostrSigner
from nostrain.ports.tolls import Refusal, Shown, Use
from nostrain.units import Digest, EventId, UnixTime
from nostrain.wire.l402 import encode_text, format_authorization, parse_challenges_untrusted

from .ticket_world import FEE, MAX_SIZE, NEXT_ROUND, ROUND, RUN, SERVER, SIZE, START, UNKNOWN_ROUND, Wallet, World

DELTA, OTHER = Digest("d" * 64), Digest("e" * 64)


class Gate(World):
    """The paywall's world, with its gate before the uploads."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.wallet = Wallet()
        self.uses = SqliteFirstUse(folder / "payments.sqlite", self.clock)

    def restart(self) -> None:
        """The server's process, not its disk."""
        self.uses.close()
        self.uses = SqliteFirstUse(self.folder / "payments.sqlite", self.clock)

    async def admit(
        self,
        token: str | None,
        *,
        who: NostrSigner | None = None,
        digest: Digest = DELTA,
        size: int = SIZE,
        round_: EventId = ROUND,
        preview: bool = False,
    ) -> Refusal | None:
        use = Use("upload", "PUT", "/upload", size, digest, (who or self.alice).pubkey, preview)
        return await TicketGate(self.paywall, self.book, self.keys, self.clock, self.uses).admit(round_, use, Shown(token))

    async def status(self, token: str | None, **changes: object) -> int:
        refusal = await self.admit(token, **changes)  # type: ignore[arg-type]
        return 200 if refusal is None else refusal.status

    async def narrowed(self, *caveats: bytes, signer: NostrSigner | None = None) -> str:
        """A paid token with these caveats added; by default those that an upload of DELTA needs."""
        challenge = await self.challenge(signer)
        preimage = (await self.pay(challenge)).rpartition(":")[2]
        macaroon = challenge.macaroon
        for caveat in caveats or narrowed_to(DELTA, "PUT"):
            macaroon = add_caveat(macaroon, caveat)
        return format_authorization(encode_text(macaroon), preimage)

    def buyer(self) -> TicketClient:
        return TicketClient(self.http, self.alice, self.clock, self.node, self.wallet)


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    found = Gate(tmp_path)
    yield found
    found.uses.close()


async def test_our_own_client_s_ticket_lets_its_delta_in_again_and_again(gate: Gate) -> None:
    await gate.buyer().buy_ticket(SERVER, RUN, ROUND, SIZE, FEE)
    token = await gate.buyer().show_ticket(ROUND, SERVER + "/", DELTA)
    assert token is not None
    assert await gate.admit(token) is None
    gate.restart()
    assert await gate.admit(token) is None, "a retry of the same upload"


async def test_a_ticket_is_shown_to_its_seller_only(gate: Gate) -> None:
    client = gate.buyer()
    assert await client.show_ticket(ROUND, SERVER, DELTA) is None
    await client.buy_ticket(SERVER, RUN, ROUND, SIZE, FEE)
    for stranger in ("http://tickets.test", "https://tickets.test:8402", "http://tickets.test:8402/x", "http://tickets.test.evil:8402"):
        assert await client.show_ticket(ROUND, stranger, DELTA) is None
    assert await client.show_ticket(NEXT_ROUND, SERVER, DELTA) is None


async def test_a_replay_for_another_blob_is_409_also_after_a_restart(gate: Gate) -> None:
    await gate.buyer().buy_ticket(SERVER, RUN, ROUND, SIZE, FEE)
    first, second = [await gate.buyer().show_ticket(ROUND, SERVER, digest) for digest in (DELTA, OTHER)]
    assert await gate.admit(first) is None
    assert await gate.status(second, digest=OTHER) == 409
    gate.restart()
    assert await gate.status(second, digest=OTHER) == 409
    assert await gate.admit(first) is None


async def test_a_second_paid_ticket_is_no_second_blob(gate: Gate) -> None:
    first = await gate.narrowed()
    second = await gate.narrowed(*narrowed_to(OTHER, "PUT"))
    assert await gate.admit(first) is None
    assert await gate.status(second, digest=OTHER) == 409


async def test_of_two_uploads_at_once_one_is_let_in(gate: Gate) -> None:
    await gate.buyer().buy_ticket(SERVER, RUN, ROUND, SIZE, FEE)
    digests = [Digest(f"{index:064x}") for index in range(8)]
    found: list[int] = []

    async def race(digest: Digest) -> None:
        token = await gate.buyer().show_ticket(ROUND, SERVER, digest)
        found.append(await gate.status(token, digest=digest))

    async with trio.open_nursery() as nursery:
        for digest in digests:
            nursery.start_soon(race, digest)
    assert sorted(found) == [200] + [409] * 7


async def test_a_preview_uses_nothing_up(gate: Gate) -> None:
    first, second = await gate.narrowed(), await gate.narrowed(*narrowed_to(OTHER, "PUT"))
    assert await gate.admit(first, preview=True) is None
    assert not gate.book.tickets
    assert await gate.admit(second, digest=OTHER) is None


async def test_paid_and_never_claimed_is_claimed_by_the_upload(gate: Gate) -> None:
    assert await gate.admit(await gate.narrowed()) is None
    assert gate.book.tickets[ROUND, gate.alice.pubkey].size == SIZE


async def test_unpaid_is_402_with_a_challenge_that_sells_the_ticket(gate: Gate) -> None:
    refusal = await gate.admit(None)
    assert refusal is not None
    assert refusal.status == 402
    challenge = parse_challenges_untrusted([value for name, value in refusal.headers if name == "WWW-Authenticate"])
    preimage = (await gate.pay(challenge)).rpartition(":")[2]
    macaroon = challenge.macaroon
    for caveat in narrowed_to(DELTA, "PUT"):
        macaroon = add_caveat(macaroon, caveat)
    assert await gate.admit(format_authorization(encode_text(macaroon), preimage)) is None


async def test_unpaid_after_the_sale_is_402_without_an_invoice(gate: Gate) -> None:
    gate.clock.time = UnixTime(START + 300)
    refusal = await gate.admit(None)
    assert refusal is not None
    assert (refusal.status, refusal.headers) == (402, (("WWW-Authenticate", "L402"),))
    assert not gate.node.invoices


async def test_held_and_not_shown_is_401_and_sells_nothing(gate: Gate) -> None:
    await gate.buyer().buy_ticket(SERVER, RUN, ROUND, SIZE, FEE)
    assert await gate.status(None) == 401
    assert len(gate.node.invoices) == 1


async def test_wrongly_paid_is_401(gate: Gate) -> None:
    mine, other = await gate.narrowed(), await gate.narrowed()
    swapped = mine.rpartition(":")[0] + ":" + other.rpartition(":")[2]
    assert await gate.status(swapped) == 401
    assert await gate.status(mine.rpartition(":")[0] + ":" + "00" * 32) == 401


async def test_another_workers_and_another_rounds_ticket_is_403(gate: Gate) -> None:
    token = await gate.narrowed()
    assert await gate.status(token, who=gate.bob) == 403
    assert await gate.status(token, round_=NEXT_ROUND) == 403
    assert await gate.status(token, round_=UNKNOWN_ROUND) == 403


@pytest.mark.parametrize(
    "caveats",
    [
        (b"size=50000",),
        (f"sha256={DELTA}".encode(),),
        narrowed_to(OTHER, "PUT"),
        narrowed_to(DELTA, "POST"),
        (*narrowed_to(DELTA, "PUT"), b"size=99999"),
        (*narrowed_to(DELTA, "PUT"), *narrowed_to(OTHER, "PUT")),
        (*narrowed_to(DELTA, "PUT"), b"services=all"),
    ],
    ids=["not narrowed", "no method", "another blob", "another method", "widened", "two blobs", "unknown"],
)
async def test_a_token_that_is_not_narrowed_to_this_upload_is_403(gate: Gate, caveats: tuple[bytes, ...]) -> None:
    assert await gate.status(await gate.narrowed(*caveats)) == 403
    assert not gate.book.tickets


async def test_oversized_is_413(gate: Gate) -> None:
    token = await gate.narrowed()
    assert await gate.status(token, size=SIZE + 1) == 413
    assert await gate.status(None, size=MAX_SIZE + 1) == 413
    assert await gate.status(await gate.narrowed(b"size=10", *narrowed_to(DELTA, "PUT")), size=11) == 413


async def test_too_late_is_410(gate: Gate) -> None:
    token = await gate.narrowed()
    gate.clock.time = UnixTime(START + 600)
    assert await gate.status(token) == 410


@pytest.mark.parametrize("token", ["L402 x:y", "L402 AgI=:" + "00" * 32, "Bearer x", "", "L402 " + "A" * 9000 + ":00"])
async def test_malformed_is_400(gate: Gate, token: str) -> None:
    assert await gate.status(token) == 400


async def test_every_truncation_is_refused(gate: Gate) -> None:
    scheme, _, rest = (await gate.narrowed()).partition(" ")
    text, _, preimage = rest.partition(":")
    for end in range(0, len(text.rstrip("=")), 3):
        assert await gate.status(f"{scheme} {text[:end]}:{preimage}") in (400, 401)


async def test_a_narrowed_token_buys_no_ticket_at_the_paywall(gate: Gate) -> None:
    assert (await gate.ask(token=await gate.narrowed())).status_code == 403


async def test_a_journal_or_node_that_cannot_answer_is_503(gate: Gate) -> None:
    gate.book.failing = True
    token = await gate.narrowed()
    assert await gate.status(token) == 503
    assert await gate.status(token) == 200
    gate.node.down = True
    assert await gate.status(None, who=gate.bob) == 503


async def test_uses_are_forgotten_when_they_cannot_matter_any_more(gate: Gate) -> None:
    assert await gate.uses.claim("old", "a", UnixTime(START + REMEMBERED_S)) == "a"
    gate.clock.time = UnixTime(START + REMEMBERED_S + 1)
    assert await gate.uses.claim("new", "b", UnixTime(START + 2 * REMEMBERED_S)) == "b"
    assert await gate.uses.claimed("old") is None
    assert await gate.uses.claimed("new") == "b"


def test_a_damaged_memory_is_for_the_operator_to_mend(tmp_path: Path) -> None:
    (tmp_path / "payments.sqlite").write_bytes(b"not a database at all" * 100)
    with pytest.raises(ConfigError, match="Move the file away"):
        SqliteFirstUse(tmp_path / "payments.sqlite", World().clock)


async def test_a_memory_that_cannot_be_written_records_nothing(gate: Gate) -> None:
    gate.uses.close()
    with pytest.raises(Unavailable, match="used payments"):
        await gate.uses.claim("key", "subject", START)
    gate.restart()
