"""Who may use our HTTP server's routes on what payment: what the Blossom application asks of whoever collects; and the
other side, what our own client asks of whoever pays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import msgspec

from nostrain.units import Digest, Pubkey, UnixTime

Route = Literal["upload", "download", "list"]


class Use(msgspec.Struct, frozen=True):
    """One request: `method` on `path`, which names or carries the blob `sha256` of `size` bytes. `who` has proved its key, where one is asked for.

    A `HEAD` that asks on behalf of a `GET` or `PUT` is that request with `preview` set: nothing is used up by it.
    """

    route: Route
    method: str
    path: str
    size: int = 0
    sha256: Digest | None = None
    who: Pubkey | None = None
    preview: bool = False


class Shown(msgspec.Struct, frozen=True):
    """What a request shows as payment: its `Authorization` if that is an L402 token, its `X-Lightning` (BUD-07)."""

    authorization: str | None = None
    lightning: str | None = None


class Refusal(msgspec.Struct, frozen=True):
    """Why a request is not served, with HTTP status and headers."""

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...] = ()


class Passage(Protocol):
    """A request that may be served."""

    async def finish(self, moved: int | None) -> None:
        """The request is over, and `moved` bytes of the blob came or went (None: it was not carried out); called exactly once, shielded.

        Raises nothing: what cannot be recorded is logged, and is in the payer's favour.
        """
        ...


class Tolls(Protocol):
    """Decides about requests whose sender, blob and size are known."""

    async def admit(self, use: Use, shown: Shown) -> Passage | Refusal:
        """Let the request in, or say why not. Cancellation: a payment that was shown can be shown again."""
        ...


class FirstUse(Protocol):
    """Remembers what a thing was first used for, through restarts: how single use is kept."""

    async def claim(self, key: str, subject: str, expires: UnixTime) -> str:
        """The subject for which `key` was first claimed: `subject` itself, now and in every repetition, or an earlier one.

        Durable when this returns. It may be forgotten after `expires`. Raises Unavailable: nothing was recorded. Cancellation: it may
        have been.
        """
        ...

    async def claimed(self, key: str) -> str | None:
        """The subject for which `key` was first claimed, if it was. Raises Unavailable."""
        ...


class FreePassage:
    """Nothing is owed and nothing recorded."""

    async def finish(self, moved: int | None) -> None:
        """As the port."""


class NoTolls:
    """`Tolls` of a server where everything is free."""

    async def admit(self, use: Use, shown: Shown) -> Passage | Refusal:
        """As the port."""
        return FreePassage()


class Errand(msgspec.Struct, frozen=True):
    """A request that we make to another's server: `method` on `url`, for the blob `sha256`."""

    method: str
    url: str
    sha256: Digest


class TollPayer(Protocol):
    """Pays other servers for requests, each at most once."""

    async def show(self, errand: Errand) -> dict[str, str]:
        """The headers that show what was paid for the errand; none if nothing was. Raises Unavailable."""
        ...

    async def pay(self, errand: Errand, demanded: Sequence[tuple[str, str]]) -> None:
        """Buy what a 402 with the headers `demanded` asks for. Idempotent: what was begun is continued, never paid again.

        Raises RemoteProtocolError (too dear, nothing that we can pay, or asked again for what was paid and shown), Unavailable (try again).
        """
        ...

    async def used(self, errand: Errand) -> None:
        """The errand is done, and what was bought for it is of no more use. Raises Unavailable."""
        ...


class TollPurchase(msgspec.Struct, frozen=True):
    """How far a purchase has come. `macaroon` is base64, or None under BUD-07; `preimage` is there once it is paid."""

    errand: Errand
    invoice: str
    macaroon: str | None
    preimage: str | None = None


class TollWallet(Protocol):
    """Remembers our purchases through crashes, so that nothing is paid twice. One purchase an errand."""

    async def load(self, errand: Errand) -> TollPurchase | None:
        """The purchase as it was last saved. Raises Unavailable."""
        ...

    async def save(self, purchase: TollPurchase) -> None:
        """Replace the errand's purchase; durable when this returns. Raises Unavailable."""
        ...

    async def forget(self, errand: Errand) -> None:
        """Drop the errand's purchase: it was used, or certainly never paid. Raises Unavailable."""
        ...
