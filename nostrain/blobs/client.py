"""The Blossom client: `ports.blobs.Blobs` over a local store and any number of servers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final

import httpx
import trio

from nostrain.blobs.auth import IDENTITY, make_header
from nostrain.blobs.download import connections, download
from nostrain.blobs.incoming import StorageFull
from nostrain.blobs.store import LOCAL, BlobStore, DigestMismatch
from nostrain.blobs.tuning import Tuning
from nostrain.blobs.upload import upload
from nostrain.blobs.urls import PaymentRequired, parse_url_untrusted
from nostrain.errors import RemoteProtocolError, Unavailable
from nostrain.ports.clock import Clock
from nostrain.ports.signer import Signer
from nostrain.ports.tickets import TicketShower
from nostrain.ports.tolls import Errand, TollPayer
from nostrain.units import Digest, EventId, Pubkey, is_hex32

_MOST_SOURCES: Final = 8


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
        transport: httpx.AsyncBaseTransport | None = None,
        tuning: Tuning | None = None,
        jitter: random.Random | None = None,
    ) -> None:
        """`servers`: base URLs to upload to and, after the given URLs, to fetch from. `local_urls`: base URLs under which our own server
        serves `store`: a blob that is in the store is there already. `tickets` shows the tickets that pay for uploads; `purse`
        pays servers that want money for a request, without it they are refused. `transport`
        decides where connections may lead: URLs are strangers'; it is closed with us. Raises RemoteProtocolError if one of the servers is not
        an http(s) URL.
        """
        self._tickets, self._purse = tickets, purse
        self._store, self._signer, self._clock = store, signer, clock
        self._tuning = tuning or Tuning()
        self._jitter = jitter or random.Random()
        self._local = [_base(url) for url in local_urls]
        self._servers = [base for base in map(_base, servers) if base not in self._local]
        self._fetching: dict[Digest, trio.Lock] = {}
        self._http = connections(transport, self._tuning)

    async def __aenter__(self) -> BlossomClient:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._http.aclose()

    async def put(self, path: Path, digest: Digest, servers: Sequence[str] = (), ticket: EventId | None = None) -> tuple[str, ...]:
        """Take the file into the store and upload it to every server, the configured and then `servers`, all at once; the URLs that now
        serve it, in that order. `ticket`: the round whose ticket is shown to the server that sold it.

        Idempotent; cancellation leaves it in the store. Raises Unavailable when no server took it, RemoteProtocolError when every server
        refused it for good or one of `servers` is not an http(s) URL, LocalProtocolError when the file is not that blob.
        """
        further = [base for base in map(_base, servers) if base not in self._local]
        targets = list(dict.fromkeys([*self._servers, *further]))
        stored = await self._store.adopt(path, digest)
        results: dict[httpx.URL, RemoteProtocolError | Unavailable | None] = dict.fromkeys(self._local)

        async def send(server: httpx.URL) -> None:
            results[server] = await self._upload(server, stored, digest, ticket)

        async with trio.open_nursery() as nursery:
            for server in targets:
                nursery.start_soon(send, server)
        urls = tuple(f"{server}/{digest}" for server in (*self._local, *targets) if results[server] is None)
        if urls:
            return urls
        faults = [fault for fault in results.values() if fault is not None]
        if faults and all(isinstance(fault, RemoteProtocolError) for fault in faults):
            raise faults[0]
        raise Unavailable(f"no server took the blob {digest}: {'; '.join(map(str, faults)) or 'none is configured'}")

    async def get(self, digest: Digest, urls: Sequence[str], max_size: int) -> Path:
        """The local file of `digest`: from the store, else from `urls` in turn, else from our servers.

        Two calls for one blob share one download. Raises RemoteProtocolError when every one of `urls` is unusable, refuses, or serves
        something else or more than `max_size` bytes; Unavailable when that is not known after `attempts` rounds; StorageFull. Nothing is
        left behind by any of them, nor by cancellation.
        """
        if not is_hex32(digest):
            raise RemoteProtocolError("blob", "its name is not a SHA-256 in lowercase hex")
        lock = self._fetching.setdefault(digest, trio.Lock())
        try:
            async with lock:
                path = self._store.path(digest)
                if path is None:
                    return await self._fetch(digest, urls, max_size)
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
                await self._pause(attempt)
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
        shown = await self._purse.show(errand)
        try:
            await upload(self._http, server, path, digest, {**headers, **shown}, self._tuning)
        except PaymentRequired as demand:
            await self._purse.pay(errand, demand.headers)
            await upload(self._http, server, path, digest, {**headers, **await self._purse.show(errand)}, self._tuning)
        await self._purse.used(errand)

    async def _credentials(self, server: httpx.URL, digest: Digest, ticket: EventId | None) -> dict[str, str]:
        """Who uploads (BUD-11), and the ticket that lets it in where one was bought."""
        identity = make_header(self._signer, verb="upload", digest=digest, host=server.host, now=self._clock.now())
        shown = None
        if ticket is not None and self._tickets is not None:
            shown = await self._tickets.show_ticket(ticket, str(server), digest)
        return {"Authorization": identity} if shown is None else {"Authorization": shown, IDENTITY: identity}

    async def _fetch(self, digest: Digest, urls: Sequence[str], max_size: int) -> Path:
        named, wrong = _parse_sources(urls)
        spare = [httpx.URL(f"{server}/{digest}") for server in self._servers]
        silent: list[Unavailable] = []
        priced: list[tuple[httpx.URL, PaymentRequired]] = []
        for attempt in range(self._tuning.attempts):
            if attempt:
                await self._pause(attempt)
            silent, priced = [], []
            for source in (*named, *spare):
                try:
                    return await self._fetch_from(source, digest, max_size)
                except StorageFull:
                    raise
                except PaymentRequired as demand:
                    priced.append((source, demand))
                except RemoteProtocolError as error:
                    wrong.append(error)
                    _drop(source, named, spare)
                except Unavailable as error:
                    silent.append(error)
            for source, wanted in priced:
                try:
                    errand = await self._pay(wanted, digest)
                except RemoteProtocolError as error:
                    wrong.append(error)
                    _drop(source, named, spare)
                except Unavailable as error:
                    silent.append(error)
                else:
                    return await self._fetch_paid(source, errand, digest, max_size)
            if wrong and not named:
                raise wrong[0]
        raise Unavailable(f"no source has the blob {digest} now: {'; '.join(map(str, silent)) or 'none is known'}")

    async def _pay(self, demand: PaymentRequired, digest: Digest) -> Errand:
        """Buy what the server demands."""
        if self._purse is None:
            raise demand
        errand = Errand("GET", demand.url, digest)
        await self._purse.pay(errand, demand.headers)
        return errand

    async def _fetch_paid(self, source: httpx.URL, errand: Errand, digest: Digest, max_size: int) -> Path:
        """From the one source that is paid for a blob: if it does not serve it, no other is paid in this call."""
        assert self._purse is not None
        path = await self._fetch_from(source, digest, max_size)
        await self._purse.used(errand)
        return path

    async def _shown(self, url: httpx.URL, digest: Digest) -> dict[str, str]:
        """What was paid for the URL before."""
        return {} if self._purse is None else await self._purse.show(Errand("GET", str(url), digest))

    async def _fetch_from(self, source: httpx.URL, digest: Digest, max_size: int) -> Path:
        async with self._store.incoming(max_size) as incoming:
            await download(self._http, source, digest, incoming, self._tuning, partial(self._shown, digest=digest))
            try:
                await self._store.commit(incoming, digest)
            except DigestMismatch as error:
                raise RemoteProtocolError("blob", error.reason, whose=source.host) from error
        path = self._store.path(digest)
        assert path is not None
        return path

    async def _pause(self, attempt: int) -> None:
        longest = self._tuning.backoff * 2 ** (attempt - 1)
        await trio.sleep(longest * (0.5 + self._jitter.random() / 2))


def _drop(source: httpx.URL, *lists: list[httpx.URL]) -> None:
    """Ask `source` no more."""
    for sources in lists:
        if source in sources:
            sources.remove(source)


def _base(url: str) -> httpx.URL:
    return parse_url_untrusted(url.rstrip("/"))


def _parse_sources(urls: Sequence[str]) -> tuple[list[httpx.URL], list[RemoteProtocolError]]:
    """Where to ask, in order, and what is wrong with the URLs that are not asked."""
    sources: dict[httpx.URL, None] = {}
    wrong: list[RemoteProtocolError] = []
    for url in urls[:_MOST_SOURCES]:
        try:
            sources[parse_url_untrusted(url)] = None
        except RemoteProtocolError as error:
            wrong.append(error)
    return list(sources), wrong
