"""The Blossom client: `ports.blobs.Blobs` over a local store and any number of servers."""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import httpx
import trio

from nostrain.blobs.auth import IDENTITY, make_header
from nostrain.blobs.download import connections
from nostrain.blobs.fetch import Hunt, Means
from nostrain.blobs.scores import Scores
from nostrain.blobs.store import LOCAL, BlobStore
from nostrain.blobs.tuning import Tuning
from nostrain.blobs.upload import upload
from nostrain.blobs.urls import PaymentRequired, parse_url_untrusted
from nostrain.errors import RemoteProtocolError, Unavailable
from nostrain.ports.blobs import ServerLists
from nostrain.ports.clock import Clock
from nostrain.ports.signer import Signer
from nostrain.ports.tickets import TicketShower
from nostrain.ports.tolls import Errand, TollPayer
from nostrain.units import Digest, EventId, Pubkey, is_hex32

_log = logging.getLogger("nostrain.blobs")


class BlossomClient:
    """Stores and fetches blobs. Use it as an async context manager, which closes its connections (not the store)."""

    def __init__(
        self,
        store: BlobStore,
        servers: Sequence[str],
        signer: Signer,
        clock: Clock,
        *,
        local_urls: Sequence[str] = (),
        tickets: TicketShower | None = None,
        purse: TollPayer | None = None,
        lists: ServerLists | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        tuning: Tuning | None = None,
        jitter: random.Random | None = None,
    ) -> None:
        """`servers`: base URLs to upload to and, after the given URLs, to fetch from. `local_urls`: base URLs under which our own server
        serves `store`: a blob that is in the store is there already. `tickets` shows the tickets that pay for uploads; `purse`
        pays servers that want money for a request, without it they are refused. `lists` tells where authors keep blobs. `transport`
        decides where connections may lead: URLs are strangers'; it is closed with us. Raises RemoteProtocolError if one of the servers is not
        an http(s) URL.
        """
        self._tickets, self._purse = tickets, purse
        self._store, self._signer, self._clock = store, signer, clock
        self._tuning = tuning or Tuning()
        self._local = [_base(url) for url in local_urls]
        self._servers = [base for base in map(_base, servers) if base not in self._local]
        self._told = False
        self._fetching: dict[Digest, trio.Lock] = {}
        self._http = connections(transport, self._tuning)
        self._means = Means(self._http, store, Scores(self._tuning), purse, lists, self._tuning, jitter or random.Random())

    async def __aenter__(self) -> BlossomClient:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._http.aclose()

    async def put(self, path: Path, digest: Digest, servers: Sequence[str] = (), ticket: EventId | None = None) -> tuple[str, ...]:
        """Take the file into the store and upload it to every server, the configured and then `servers`, all at once; the URLs that now
        serve it, in that order. Once one server has it, the others get some time more (`Tuning.laggards`, or twice what it took); if one does
        not have it in the end, the log says so. `ticket`: the round whose ticket is shown to the server that sold it.

        Idempotent; cancellation leaves it in the store. Raises Unavailable when no server took it, RemoteProtocolError when every server
        refused it for good or one of `servers` is not an http(s) URL, LocalProtocolError when the file is not that blob.
        """
        further = [base for base in map(_base, servers) if base not in self._local]
        targets = list(dict.fromkeys([*self._servers, *further]))
        stored = await self._store.adopt(path, digest)
        results: dict[httpx.URL, RemoteProtocolError | Unavailable | None] = dict.fromkeys(self._local)

        async def send(server: httpx.URL) -> None:
            results[server] = Unavailable(f"{server.host}: much slower than another server")
            results[server] = await self._upload(server, stored, digest, ticket)
            if results[server] is None:
                taken = trio.current_time()
                rest.deadline = min(rest.deadline, taken + max(self._tuning.laggards, 2 * (taken - begin)))

        begin = trio.current_time()
        with trio.CancelScope() as rest:
            async with trio.open_nursery() as nursery:
                for server in targets:
                    nursery.start_soon(send, server)
        missing = "; ".join(str(fault) for fault in results.values() if fault is not None)
        if len(results) == 1 and not self._told:
            self._told = True
            _log.info("what is published lies on one blob server only: %s", *results)
        if missing and len(results) > 1:
            _log.warning("the blob %s is on %d of %d servers: %s", digest[:8], list(results.values()).count(None), len(results), missing)
        urls = tuple(f"{server}/{digest}" for server in (*self._local, *targets) if results[server] is None)
        if urls:
            return urls
        faults = [fault for fault in results.values() if fault is not None]
        if faults and all(isinstance(fault, RemoteProtocolError) for fault in faults):
            raise faults[0]
        raise Unavailable(f"no server took the blob {digest}: {'; '.join(map(str, faults)) or 'none is configured'}")

    async def get(self, digest: Digest, urls: Sequence[str], max_size: int, author: Pubkey | None = None) -> Path:
        """The local file of `digest`: from the store, else from whichever of `urls` and our servers serves it first and right (`scores`, `gather`);
        servers that want money come last, and one of them is paid. When nobody has it, the servers that `author` lists are asked (BUD-03).

        Two calls for one blob share one download. Raises RemoteProtocolError when every one of `urls` is unusable, refuses, or serves
        something else or more than `max_size` bytes; Unavailable when that is not known after `attempts` rounds; StorageFull. What came
        until then, or until a cancellation, is kept for a while, and the next call goes on from there, also after a restart (`parts`).
        """
        if not is_hex32(digest):
            raise RemoteProtocolError("blob", "its name is not a SHA-256 in lowercase hex")
        lock = self._fetching.setdefault(digest, trio.Lock())
        try:
            async with lock:
                path = self._store.path(digest)
                # It is ours from now on, whoever stored it, or our own server might remove it while we use it.
                if path is None or await self._store.claim(digest, LOCAL) is None:
                    return await Hunt(self._means, digest, urls, self._servers, max_size, author).run()
        finally:
            if not lock.locked() and not lock.statistics().tasks_waiting:
                self._fetching.pop(digest, None)
        size = path.stat().st_size
        if size > max_size:
            raise RemoteProtocolError("blob", f"{digest} has {size} bytes, at most {max_size} are wanted")
        return path

    async def discard(self, digest: Digest, owners: Sequence[Pubkey] = ()) -> None:
        """Give up our own copy, and what `owners` have stored in the store under that name. Idempotent. Raises StorageFull."""
        await self._store.discard(digest, (*owners, LOCAL))

    async def _upload(
        self, server: httpx.URL, path: Path, digest: Digest, ticket: EventId | None
    ) -> RemoteProtocolError | Unavailable | None:
        """How the upload ended: None when the server has the blob."""
        fault: RemoteProtocolError | Unavailable | None = None
        for attempt in range(self._tuning.attempts):
            if attempt:
                await self._means.pause(attempt)
            try:
                await self._send(server, path, digest, ticket)
            except RemoteProtocolError as error:
                return error
            except Unavailable as error:
                fault = error
            else:
                return None
        return fault

    async def _send(self, server: httpx.URL, path: Path, digest: Digest, ticket: EventId | None) -> None:
        """One upload, which is paid for if the server wants that and we may."""
        headers, errand = await self._credentials(server, digest, ticket), Errand("PUT", f"{server}/upload", digest)
        if self._purse is None:
            await upload(self._http, server, path, digest, headers, self._tuning)
            return
        try:
            await upload(self._http, server, path, digest, _beside(headers, await self._purse.show(errand)), self._tuning)
        except PaymentRequired as demand:
            ticketed = IDENTITY in headers
            demanded = [pair for pair in demand.headers if not (ticketed and pair[0].lower() == "www-authenticate")]
            await self._purse.pay(errand, demanded)
            await upload(self._http, server, path, digest, _beside(headers, await self._purse.show(errand)), self._tuning)
        await self._purse.used(errand)

    async def _credentials(self, server: httpx.URL, digest: Digest, ticket: EventId | None) -> dict[str, str]:
        """Who uploads (BUD-11), and the ticket that lets it in where one was bought."""
        identity = make_header(self._signer, verb="upload", digest=digest, host=server.host, now=self._clock.now())
        shown = None
        if ticket is not None and self._tickets is not None:
            shown = await self._tickets.show_ticket(ticket, str(server), digest)
        return {"Authorization": identity} if shown is None else {"Authorization": shown, IDENTITY: identity}


def _beside(headers: dict[str, str], shown: dict[str, str]) -> dict[str, str]:
    """Who uploads and what was paid: where a token takes `Authorization`, the identity stands beside it (ADR 0026)."""
    if "Authorization" in shown and IDENTITY not in headers:
        return {IDENTITY: headers["Authorization"], **shown}
    return {**headers, **shown}


def _base(url: str) -> httpx.URL:
    return parse_url_untrusted(url.rstrip("/"))
