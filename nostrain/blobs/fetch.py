"""One fetch of a blob: free sources first, side by side or one after another (`gather`); then the one source that is paid, alone."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
import trio

from nostrain.blobs.download import Disagrees, Download, NotThere
from nostrain.blobs.gather import Gathering, culprit
from nostrain.blobs.incoming import Incoming, StorageFull
from nostrain.blobs.scores import Scores
from nostrain.blobs.store import BlobStore, DigestMismatch
from nostrain.blobs.tuning import Tuning
from nostrain.blobs.urls import PaymentRequired, Source, parse_url_untrusted, source_of
from nostrain.errors import RemoteProtocolError, Unavailable
from nostrain.ports.blobs import ServerLists
from nostrain.ports.tolls import Errand, TollPayer
from nostrain.units import Digest, Pubkey

_MOST_SOURCES: Final = 8


@dataclass(frozen=True)
class Means:
    """What all fetches of a client share."""

    http: httpx.AsyncClient
    store: BlobStore
    scores: Scores
    purse: TollPayer | None
    lists: ServerLists | None
    tuning: Tuning
    jitter: random.Random

    async def pause(self, attempt: int) -> None:
        """Wait before the `attempt`th repetition."""
        longest = self.tuning.backoff * 2 ** (attempt - 1)
        await trio.sleep(longest * (0.5 + self.jitter.random() / 2))


class Hunt:
    """A blob that is fetched from `urls`, or else from under `servers`, or else from where `author` says that it keeps its blobs."""

    def __init__(
        self, means: Means, digest: Digest, urls: Sequence[str], servers: Sequence[httpx.URL], max_size: int, author: Pubkey | None = None
    ) -> None:
        self._means, self._digest, self._max_size, self._author = means, digest, max_size, author
        self._named, self._wrong = _parse(urls, digest)
        self._spare = dict.fromkeys(Source(httpx.URL(f"{server}/{digest}"), str(server)) for server in servers)
        self._asked = frozenset((*self._named, *self._spare))
        self._silent: list[Unavailable] = []
        self._priced: dict[Source, PaymentRequired] = {}
        self._alone = False

    async def run(self) -> Path:
        """The blob's file in the store. Raises as `BlossomClient.get`."""
        async with self._means.store.incoming(self._max_size, resume=self._digest) as incoming:
            if incoming.size and await incoming.so_far() == self._digest and (path := await self._commit(incoming, None)):
                return path
            gathering = Gathering(Download(self._means.http, self._digest, incoming, self._means.tuning), self._means.scores)
            for attempt in range(self._means.tuning.attempts):
                if attempt:
                    await self._means.pause(attempt)
                self._silent, self._priced = [], {}
                path = await self._bought(gathering, incoming) or await self._free(gathering, incoming) or await self._buy(incoming)
                if path is None and await self._look_up():
                    path = await self._free(gathering, incoming)
                if path is not None:
                    return path
                if self._wrong and not self._named:
                    raise self._wrong[0]
        reasons = "; ".join(map(str, self._silent)) or "none is known"
        raise Unavailable(f"no source has the blob {self._digest} now: {reasons}")

    async def _look_up(self) -> bool:
        """Once, after everybody else was asked in vain: whether the author's list of servers names one that was not."""
        author, self._author = self._author, None
        if author is None or self._means.lists is None:
            return False
        listed = [f"{server.rstrip('/')}/{self._digest}" for server in await self._means.lists.servers(author)]
        new = [source for source in _parse(listed, self._digest)[0] if source not in self._asked]
        self._spare.update(dict.fromkeys(new))
        return bool(new)

    def _live(self) -> list[Source]:
        return list(dict.fromkeys((*self._named, *self._spare)))

    def _drop(self, source: Source, error: RemoteProtocolError) -> None:
        """Ask `source` no more."""
        self._wrong.append(error)
        self._named.pop(source, None)
        self._spare.pop(source, None)

    def _take(self, source: Source, fault: RemoteProtocolError | Unavailable) -> None:
        """Note how a source was asked in vain."""
        if isinstance(fault, PaymentRequired):
            self._priced[source] = fault
        elif isinstance(fault, RemoteProtocolError):
            self._drop(source, fault)
        else:
            self._silent.append(fault)

    async def _free(self, gathering: Gathering, incoming: Incoming) -> Path | None:
        """From whoever serves it for nothing. What was paid for is not shown here: who is cancelled would be paid for nothing."""
        waiting = deque(self._means.scores.order(self._live(), self._max_size))
        suspects = []
        while not self._alone and waiting:
            try:
                complete = await gathering.run(waiting)
            except Disagrees:
                self._alone, complete = True, False
            for source, fault in gathering.faults.items():
                self._take(source, fault)
            gathering.faults.clear()
            if not complete:
                suspects = list(gathering.parts) if self._alone else []
                break
            senders = {part.source for part in gathering.parts}
            path = await self._commit(incoming, senders.pop() if len(senders) == 1 else None)
            if path is not None:
                return path
            self._alone = bool(senders)
            suspects = list(gathering.parts) if self._alone else []
            await gathering.restart()
        if not self._alone:
            return None
        path = await self._one_by_one(gathering, incoming)
        if path is not None and suspects:
            liar = await trio.to_thread.run_sync(culprit, suspects, path)
            self._means.scores.lied(liar and liar.server)
        return path

    async def _one_by_one(self, gathering: Gathering, incoming: Incoming) -> Path | None:
        """Each by itself, from the beginning: after sources that contradicted each other, or together sent something else."""
        scores = self._means.scores
        for source in scores.order(self._live(), self._max_size):
            await gathering.restart()
            try:
                await Download(self._means.http, self._digest, incoming, self._means.tuning).whole(source.url)
            except StorageFull:
                raise
            except (RemoteProtocolError, Unavailable) as error:
                self._take(source, error)
                if isinstance(error, Unavailable) and not isinstance(error, NotThere):
                    scores.failed(source.server)
                continue
            path = await self._commit(incoming, source)
            if path is not None:
                return path
        await gathering.restart()
        return None

    async def _commit(self, incoming: Incoming, sender: Source | None) -> Path | None:
        """The blob's file; None if it is something else, which `sender` answers for if it alone sent it."""
        try:
            await self._means.store.commit(incoming, self._digest)
        except DigestMismatch as error:
            if sender is not None:
                self._means.scores.lied(sender.server)
                self._drop(sender, RemoteProtocolError("blob", error.reason, whose=sender.url.host))
            await incoming.restart()
            return None
        path = self._means.store.path(self._digest)
        assert path is not None
        return path

    async def _bought(self, gathering: Gathering, incoming: Incoming) -> Path | None:
        """From a source that was paid before, say before a restart."""
        if self._means.purse is None:
            return None
        for source in self._live():
            errand = Errand("GET", str(source.url), self._digest)
            if not await self._means.purse.show(errand):
                continue
            try:
                return await self._fetch_paid(source, errand, incoming)
            except StorageFull:
                raise
            except (RemoteProtocolError, Unavailable) as error:
                self._take(source, error)
                await gathering.restart()
        return None

    async def _buy(self, incoming: Incoming) -> Path | None:
        """From the one source that is paid for a blob: if it does not serve it, no other is paid in this call."""
        for source, demand in self._priced.items():
            try:
                errand = await self._pay(demand)
            except RemoteProtocolError as error:
                self._drop(source, error)
            except Unavailable as error:
                self._silent.append(error)
            else:
                return await self._fetch_paid(source, errand, incoming)
        return None

    async def _pay(self, demand: PaymentRequired) -> Errand:
        """Buy what the server demands."""
        if self._means.purse is None:
            raise demand
        errand = Errand("GET", demand.url, self._digest)
        await self._means.purse.pay(errand, demand.headers)
        return errand

    async def _fetch_paid(self, source: Source, errand: Errand, incoming: Incoming) -> Path:
        assert self._means.purse is not None
        await incoming.restart()
        await Download(self._means.http, self._digest, incoming, self._means.tuning, self._shown).whole(source.url)
        path = await self._commit(incoming, source)
        if path is None:
            raise self._wrong[-1]
        await self._means.purse.used(errand)
        return path

    async def _shown(self, url: httpx.URL) -> dict[str, str]:
        """What was paid for the URL before."""
        assert self._means.purse is not None
        return await self._means.purse.show(Errand("GET", str(url), self._digest))


def _parse(urls: Sequence[str], digest: Digest) -> tuple[dict[Source, None], list[RemoteProtocolError]]:
    """Where to ask, in order, and what is wrong with the URLs that are not asked."""
    sources: dict[Source, None] = {}
    wrong: list[RemoteProtocolError] = []
    for url in urls[:_MOST_SOURCES]:
        try:
            sources[source_of(parse_url_untrusted(url), digest)] = None
        except RemoteProtocolError as error:
            wrong.append(error)
    return sources, wrong
