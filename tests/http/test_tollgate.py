"""Single requests for money: L402 and BUD-07 side by side, each bound to its request and used once, and every way not to have paid."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from nostrain.crypto.caveats import Toll
from nostrain.crypto.macaroon import Macaroon, add_caveat, mint
from nostrain.http import tollgate
from nostrain.http.first_use import SqliteFirstUse
from nostrain.http.toll_preimage import make_preimage, read_preimage_untrusted
from nostrain.http.tollgate import LIFETIME_S, Price, Tollgate
from nostrain.ports.tolls import FreePassage, Passage, Refusal, Route, Shown, Use
from nostrain.testing.entropy import SeededEntropy
from nostrain.units import Digest, UnixTime
from nostrain.wire.bolt11 import parse_bolt11_untrusted
from nostrain.wire.l402 import Challenge, encode_text, format_authorization, parse_challenges_untrusted

from .ticket_world import START, Keys, Node, SetClock

BLOB, OTHER = Digest("d" * 64), Digest("e" * 64)
SIZE = 2_500_000
GET = Use("download", "GET", f"/{BLOB}", SIZE, BLOB)
PRICES: dict[Route, Price] = {"download": Price(1000, 2000), "upload": Price(0, 1000), "list": Price(5000)}


class Gate:
    """A toll gate, and a customer."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.clock, self.node, self.keys = folder, SetClock(), Node(), Keys()
        self.entropy = SeededEntropy(0, "tolls")
        self.restart()

    def restart(self) -> None:
        """A new process on the same disk."""
        self.uses = SqliteFirstUse(self.folder / "payments.sqlite", self.clock)
        self.gate = Tollgate(PRICES, self.node, self.keys, self.clock, self.entropy, self.uses)

    async def refused(self, use: Use = GET, token: str | None = None, preimage: str | None = None) -> Refusal:
        found = await self.gate.admit(use, Shown(token, preimage))
        assert isinstance(found, Refusal)
        return found

    async def status(self, use: Use = GET, token: str | None = None, preimage: str | None = None) -> int:
        return (await self.refused(use, token, preimage)).status

    async def admitted(self, use: Use = GET, token: str | None = None, preimage: str | None = None) -> Passage:
        found = await self.gate.admit(use, Shown(token, preimage))
        assert not isinstance(found, Refusal), found.reason
        return found

    async def challenge(self, use: Use = GET) -> Challenge:
        refusal = await self.refused(use)
        assert refusal.status == 402
        return parse_challenges_untrusted([value for name, value in refusal.headers if name == "WWW-Authenticate"])

    async def paid(self, use: Use = GET, change: Callable[[Macaroon], Macaroon] = lambda macaroon: macaroon) -> tuple[str, str]:
        """The two ways to show one payment: the value of Authorization, the value of X-Lightning."""
        challenge = await self.challenge(use)
        preimage = self.node.preimages[challenge.identifier.payment_hash.hex()]
        return format_authorization(encode_text(change(challenge.macaroon)), preimage), preimage


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    found = Gate(tmp_path)
    yield found
    found.uses.close()


@pytest.mark.parametrize(
    ("price", "size", "msat"),
    [
        (Price(), 10**9, 0),
        (Price(1), 0, 1000),
        (Price(1000, 2000), SIZE, 6000),
        (Price(0, 1000), 1, 1000),
        (Price(0, 1000), 0, 0),
        (Price(0, 1000), 10**6 + 1, 2000),
    ],
)
def test_prices_are_whole_sat_rounded_up(price: Price, size: int, msat: int) -> None:
    assert price.of(size) == msat


async def test_unpaid_is_402_with_one_invoice_in_three_spellings(gate: Gate) -> None:
    refusal = await gate.refused()
    assert refusal.status == 402
    first, newer = [value for name, value in refusal.headers if name == "WWW-Authenticate"]
    invoice = dict(refusal.headers)["X-Lightning"]
    assert first.startswith('L402 macaroon="')
    assert newer.startswith('L402 version="0", token="')
    assert first.endswith(f'invoice="{invoice}"')
    assert newer.endswith(f'invoice="{invoice}"')
    assert parse_bolt11_untrusted(invoice).amount_msat == 6000


async def test_free_routes_ask_for_nothing(gate: Gate) -> None:
    free = Tollgate({}, gate.node, gate.keys, gate.clock, gate.entropy, gate.uses)
    assert isinstance(await free.admit(GET, Shown("L402 nonsense", "nonsense")), FreePassage)
    assert isinstance(await gate.gate.admit(replace_use(GET, route="upload", size=0), Shown()), FreePassage)
    assert not gate.node.invoices


@pytest.mark.parametrize("way", ["L402", "LSAT", "BUD-07"])
async def test_what_was_bought_is_used_once(gate: Gate, way: str) -> None:
    token, preimage = await gate.paid()
    if way == "BUD-07":
        passage = await gate.admitted(preimage=preimage)
    else:
        passage = await gate.admitted(token=token.replace("L402", way, 1))
    await passage.finish(SIZE)
    assert await gate.status(token=token) == 409
    assert await gate.status(preimage=preimage) == 409, "one payment, however it is shown"
    gate.uses.close()
    gate.restart()
    assert await gate.status(token=token) == 409, "also after a restart"


async def test_a_transfer_that_broke_off_may_be_resumed_until_all_of_it_went_out(gate: Gate) -> None:
    token, _ = await gate.paid()
    await (await gate.admitted(token=token)).finish(None)
    await (await gate.admitted(token=token)).finish(1_000_000)
    await (await gate.admitted(token=token)).finish(1_500_000)
    assert await gate.status(token=token) == 409


async def test_of_two_requests_at_once_one_is_served(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tollgate, "PATIENCE_S", 0)
    token, preimage = await gate.paid()
    passage = await gate.admitted(token=token)
    refusal = await gate.refused(preimage=preimage)
    assert (refusal.status, refusal.headers) == (429, (("Retry-After", "1"),))
    await passage.finish(None)
    await gate.admitted(preimage=preimage)


async def test_a_request_on_anothers_heels_waits_for_it(gate: Gate) -> None:
    token, preimage = await gate.paid()
    passage = await gate.admitted(token=token)
    found: list[int] = []

    async def follow() -> None:
        found.append(await gate.status(preimage=preimage))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow)
        await trio.testing.wait_all_tasks_blocked()
        await passage.finish(SIZE)
    assert found == [409]


async def test_a_preview_uses_nothing_up(gate: Gate) -> None:
    token, _ = await gate.paid()
    for _ in range(3):
        assert isinstance(await gate.gate.admit(replace_use(GET, preview=True), Shown(token)), FreePassage)
    assert await gate.status(replace_use(GET, preview=True)) == 402


OTHERS = [
    Use("download", "GET", f"/{OTHER}", SIZE, OTHER),
    Use("upload", "PUT", "/upload", SIZE, BLOB),
    Use("list", "GET", f"/list/{BLOB}"),
]


def replace_use(use: Use, **changes: object) -> Use:
    fields = {name: getattr(use, name) for name in Use.__struct_fields__}
    return Use(**(fields | changes))


@pytest.mark.parametrize("other", OTHERS, ids=lambda use: use.route)
async def test_another_request_is_403_or_for_bud_07_400(gate: Gate, other: Use) -> None:
    token, preimage = await gate.paid()
    assert await gate.status(other, token=token) == 403
    assert await gate.status(other, preimage=preimage) == 400
    await gate.admitted(token=token)


async def test_more_bytes_than_were_paid_for_are_413(gate: Gate) -> None:
    upload = Use("upload", "PUT", "/upload", 1_000_000, BLOB)
    token, preimage = await gate.paid(upload)
    larger = replace_use(upload, size=1_000_001)
    assert await gate.status(larger, token=token) == 413
    assert await gate.status(larger, preimage=preimage) == 413
    await (await gate.admitted(upload, token=token)).finish(1_000_000)


async def test_too_late_is_410_or_for_bud_07_400(gate: Gate) -> None:
    token, preimage = await gate.paid()
    gate.clock.time = UnixTime(START + LIFETIME_S)
    assert await gate.status(token=token) == 410
    assert await gate.status(preimage=preimage) == 400


async def test_a_forged_token_and_anothers_preimage_are_401(gate: Gate) -> None:
    (one, _), (other, _) = await gate.paid(), await gate.paid()
    assert await gate.status(token=one.rpartition(":")[0] + ":" + other.rpartition(":")[2]) == 401
    challenge = await gate.challenge()
    preimage = gate.node.preimages[challenge.identifier.payment_hash.hex()]
    for forged in (
        mint(
            Keys("another server").ticket_key(challenge.identifier.token), challenge.macaroon.identifier, None, challenge.macaroon.caveats
        ),
        replace(challenge.macaroon, caveats=Toll("GET", f"/{OTHER}", OTHER, SIZE, START + LIFETIME_S).caveats()),
        replace(challenge.macaroon, signature=bytes(32)),
    ):
        assert await gate.status(token=format_authorization(encode_text(forged), preimage)) == 401


@pytest.mark.parametrize(
    "caveat", [b"size=99999999", b"path=/other", b"method=PUT", b"sha256=" + OTHER.encode(), b"services=x:0", b"run=" + b"a" * 64]
)
async def test_caveats_that_widen_or_mean_nothing_here_are_403(gate: Gate, caveat: bytes) -> None:
    token, _ = await gate.paid(change=lambda macaroon: add_caveat(macaroon, caveat))
    assert await gate.status(token=token) == 403


@pytest.mark.parametrize("preimage", ["", "x", "00" * 31, "00" * 33, "zz" * 32, "lnbcrt1", "0" * 100_000])
async def test_malformed_preimages_are_400(gate: Gate, preimage: str) -> None:
    assert await gate.status(preimage=preimage) == 400


async def test_preimages_that_we_did_not_make_are_400(gate: Gate) -> None:
    _, preimage = await gate.paid()
    for at in range(64):
        other = preimage[:at] + ("0" if preimage[at] != "0" else "1") + preimage[at + 1 :]
        assert await gate.status(preimage=other) == 400


async def test_a_payment_does_not_open_two_gates(gate: Gate, tmp_path: Path) -> None:
    _, preimage = await gate.paid()
    token, _ = await gate.paid()
    other = Tollgate(PRICES, gate.node, Keys("another server"), gate.clock, gate.entropy, gate.uses)
    for shown in (Shown(token), Shown(None, preimage)):
        found = await other.admit(GET, shown)
        assert isinstance(found, Refusal)
        assert found.status in (400, 401)


async def test_trouble_of_ours_is_503_and_costs_the_buyer_nothing(gate: Gate, caplog: pytest.LogCaptureFixture) -> None:
    token, _ = await gate.paid()
    gate.node.down = True
    assert await gate.status() == 503
    passage = await gate.admitted(token=token)
    gate.uses.close()
    await passage.finish(SIZE)
    assert "may be repeated" in caplog.text
    assert await gate.status(token=token) == 503
    gate.restart()
    await gate.admitted(token=token)


async def test_what_is_remembered_of_broken_transfers_is_bounded(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tollgate, "UNFINISHED", 4)
    token, _ = await gate.paid()
    await (await gate.admitted(token=token)).finish(SIZE - 1)
    for _ in range(4):
        _, preimage = await gate.paid(OTHERS[0])
        await (await gate.admitted(OTHERS[0], preimage=preimage)).finish(1)
    assert len(gate.gate._moved) == 4
    await (await gate.admitted(token=token)).finish(1)
    await gate.admitted(token=token)


@given(
    size=st.integers(0, (1 << 48) - 1),
    expires=st.integers(0, (1 << 40) - 1),
    path=st.text(max_size=20),
    random=st.binary(min_size=5, max_size=5),
    flip=st.integers(0, 255),
)
def test_a_preimage_tells_what_it_paid_for_and_cannot_be_altered(size: int, expires: int, path: str, random: bytes, flip: int) -> None:
    keys, toll = Keys(), Toll("GET", path, BLOB, size, expires)
    preimage = make_preimage(keys, toll, random)
    assert len(preimage) == 32
    assert read_preimage_untrusted(keys, preimage, "GET", path, BLOB) == toll
    assert read_preimage_untrusted(keys, preimage, "PUT", path, BLOB) is None
    assert read_preimage_untrusted(keys, preimage, "GET", path, None) is None
    assert read_preimage_untrusted(keys, preimage, "GET", path + "x", BLOB) is None
    altered = (int.from_bytes(preimage, "big") ^ 1 << flip).to_bytes(32, "big")
    assert read_preimage_untrusted(keys, altered, "GET", path, BLOB) is None
    assert read_preimage_untrusted(keys, sha256(preimage).digest(), "GET", path, BLOB) is None
