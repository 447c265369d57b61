"""What a configuration's [lightning] makes of a node, and the effect that buys a ticket."""

from __future__ import annotations

from contextlib import AsyncExitStack
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from nostrain.config.load import load_config
from nostrain.core.effects import BuyTicket, Failed, TicketBought
from nostrain.core.rows import NodeState
from nostrain.daemon.clock import SystemClock
from nostrain.daemon.money import Money, Office
from nostrain.daemon.ports import Ports
from nostrain.daemon.runners import perform
from nostrain.daemon.tickets import NodeTickets
from nostrain.daemon.uploads import RunUploads
from nostrain.errors import LocalProtocolError, OutcomeUnknown, RemoteProtocolError, Unavailable
from nostrain.http.l402_client import TicketClient
from nostrain.http.paywall import paywall_app
from nostrain.keys.signer import NostrSigner
from nostrain.keys.store import RootSecret
from nostrain.lightning.client import ClnLightning
from nostrain.lightning.rpc import ClnRpc
from nostrain.ports.tickets import Ticket
from nostrain.ports.tolls import FreePassage, Shown, Use
from nostrain.units import Digest, EventId, Msat, Pubkey

ROOT = RootSecret(sha256(b"money").digest())
URL = "http://node.test/ticket?announcement=" + "22" * 32 + "&size=5"


def money(folder: Path, roles: str, lightning: str) -> Money:
    path = folder / "nostraind.toml"
    run = '[blobs]\nservers = ["http://node.test"]\n[coordinator.run]\nname = "r"\nrounds = 1\n' if "coordinator" in roles else ""
    path.write_text(f'name = "n"\ndata_dir = "{folder}"\nroles = [{roles}]\nrelays = ["ws://127.0.0.1:1"]\n{lightning}{run}')
    return Money(load_config(path, (), {}), ROOT, SystemClock(), ClnRpc(folder / "lightning-rpc") if lightning else None)


def lightning_at(folder: Path) -> str:
    return f'[lightning]\nsocket = "{folder}/lightning-rpc"\n'


def office(found: Money, stack: AsyncExitStack) -> Office | None:
    return found.open_office(stack, NodeTickets(NodeState, lambda: None), RunUploads(Pubkey("1" * 64), None))


async def test_a_coordinator_with_a_lightning_node_sells_tickets(tmp_path: Path) -> None:
    found = money(tmp_path, '"coordinator"', lightning_at(tmp_path))
    assert isinstance(found.lightning, ClnLightning)
    async with AsyncExitStack() as stack:
        made = office(found, stack)
        assert made is not None
        assert made.paywall is not None
        async with httpx.AsyncClient(transport=httpx.ASGITransport(paywall_app(made.paywall))) as http:
            response = await http.post(URL)
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Nostr"
        assert isinstance(await made.tolls.admit(Use("download", "GET", "/x"), Shown()), FreePassage)


@pytest.mark.parametrize(("roles", "with_node"), [('"coordinator"', False), ('"worker"', True), ('"worker"', False)])
async def test_nobody_else_does(tmp_path: Path, roles: str, with_node: bool) -> None:
    found = money(tmp_path, roles, lightning_at(tmp_path) if with_node else "")
    assert (found.lightning is not None) == with_node
    async with AsyncExitStack() as stack:
        made = office(found, stack)
        assert (made is not None) == with_node
        assert made is None or made.paywall is None


@pytest.mark.parametrize(
    ("roles", "with_node", "buys"), [('"worker"', True, True), ('"worker"', False, False), ('"coordinator"', True, False)]
)
async def test_only_a_worker_with_a_lightning_node_buys(tmp_path: Path, roles: str, with_node: bool, buys: bool) -> None:
    found = money(tmp_path, roles, lightning_at(tmp_path) if with_node else "")
    async with AsyncExitStack() as stack:
        assert isinstance(await found.ticket_buyer(stack, NostrSigner(ROOT)), TicketClient) == buys


EFFECT = BuyTicket(
    owner="work/r", name="ticket", server="http://s", run=EventId("11" * 32), announcement=EventId("22" * 32), size=9, ceiling_msat=Msat(7)
)
TICKET = Ticket(EFFECT.announcement, Pubkey("33" * 32), 9, Digest("44" * 32), Digest("55" * 32))


class Buyer:
    """Answers with what it is given, in turn."""

    def __init__(self, *answers: Ticket | Exception) -> None:
        self._answers = list(answers)
        self.calls: list[tuple[str, EventId, EventId, int, Msat]] = []

    async def buy_ticket(self, server: str, run: EventId, announcement: EventId, size: int, ceiling_msat: Msat) -> Ticket:
        self.calls.append((server, run, announcement, size, ceiling_msat))
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def ports(buyer: Buyer | None) -> Ports:
    """Nothing but the buyer: no other port may be touched."""
    none = cast("Any", None)
    return Ports(none, none, none, none, none, none, none, none, tickets=buyer)


async def test_buying_ends_with_the_ticket_s_token() -> None:
    buyer = Buyer(TICKET)
    assert await perform(EFFECT, ports(buyer)) == TicketBought(TICKET.token, TICKET.payment_hash)
    assert buyer.calls == [("http://s", EFFECT.run, EFFECT.announcement, 9, Msat(7))]


async def test_a_refusal_for_good_is_an_outcome() -> None:
    outcome = await perform(EFFECT, ports(Buyer(RemoteProtocolError("ticket", "refused with HTTP 410"))))
    assert isinstance(outcome, Failed)
    assert "410" in outcome.reason


async def test_what_may_pass_is_tried_again(autojump_clock: object) -> None:
    buyer = Buyer(Unavailable("not now"), OutcomeUnknown("no reply"), TICKET)
    assert await perform(EFFECT, ports(buyer)) == TicketBought(TICKET.token, TICKET.payment_hash)
    assert len(buyer.calls) == 3


async def test_a_ticket_to_buy_without_a_buyer_is_our_own_mistake() -> None:
    with pytest.raises(LocalProtocolError, match="nobody to buy it"):
        await perform(EFFECT, ports(None))
