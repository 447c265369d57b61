"""Effect runners: each turns one effect into its outcome through one port. `perform` is the only entry.

`Unavailable` is retried with backoff for as long as the effect is listed; a remote's protocol error becomes `Failed`; an unknown outcome is
asked for again, never acted on. No timeout wraps a money effect: cancelling one means that its outcome is unknown. Nothing is given up here but
what is `spare`: when something is too late follows from the round's deadlines, which the machines watch; they withdraw the effect then.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import assert_never

import trio

from nostrain.core.effects import (
    BuyTicket,
    Cancel,
    ChainLink,
    CheckDispute,
    CheckLocks,
    Compute,
    Credentials,
    Discard,
    Draw,
    DrawLocks,
    Effect,
    Evict,
    Failed,
    Fetch,
    FetchDataset,
    FetchInvoice,
    FindTicket,
    HoldInvoice,
    MakeOffer,
    OpenChannel,
    OpenLocks,
    OracleAnnounce,
    OracleAttest,
    Outcome,
    Pay,
    PayInvoice,
    PrepareWithdrawal,
    Prove,
    Send,
    SendWithdrawal,
    Settle,
    Sign,
    SpliceOut,
    Unlock,
    Upload,
)
from nostrain.daemon.ports import Ports
from nostrain.daemon.runners import chain, compute, files, locks, money, oracle, proofs, speech
from nostrain.errors import OutcomeUnknown, RemoteProtocolError, Unavailable

log = logging.getLogger("nostrain.effects")

Perform = Callable[[Effect, Ports], Awaitable[Outcome]]
"""`perform`, or something in its place."""

FIRST_BACKOFF_S = 0.25
LAST_BACKOFF_S = 30.0
SPARE_ATTEMPTS = 5
"""Of a fetch that the machines can do without."""
WARN_FROM_S = 4.0
"""From this backoff on, a failure is worth a warning."""


async def perform(effect: Effect, ports: Ports) -> Outcome:
    """Run `effect` to its outcome, however long that takes. Raises only LocalProtocolError, ConfigError and what is a bug."""
    backoff, attempts = FIRST_BACKOFF_S, 0
    while True:
        attempts += 1
        try:
            return await once(effect, ports)
        except RemoteProtocolError as error:
            if not insisted(effect):
                return Failed(str(error))
            reason = str(error)
        except (Unavailable, OutcomeUnknown) as error:
            reason = str(error)
        if isinstance(effect, Fetch) and effect.spare and attempts >= SPARE_ATTEMPTS:
            return Failed(reason)
        level = logging.INFO if backoff < WARN_FROM_S else logging.WARNING
        log.log(level, "%s: %s; again in %.1f s", effect.id[:80], reason, backoff)
        await trio.sleep(backoff)
        backoff = min(backoff * 2, LAST_BACKOFF_S)


def insisted(effect: Effect) -> bool:
    """Whether wrong bytes are only one source's fault, and other sources have to be asked until one is right."""
    return isinstance(effect, FetchDataset) or (isinstance(effect, Fetch) and effect.must)


async def once(effect: Effect, ports: Ports) -> Outcome:
    """One attempt."""
    match effect:
        case Sign() | Send():
            return await speech.run(effect, ports)
        case Fetch() | FetchDataset() | Upload() | Discard() | Evict():
            return await files.run(effect, ports)
        case Compute() | Draw():
            return await compute.run(effect, ports)
        case Credentials() | ChainLink() | OracleAnnounce() | OracleAttest():
            return await oracle.run(effect, ports)
        case DrawLocks() | OpenLocks() | CheckLocks() | Unlock():
            return await ports.offload(lambda: locks.run(effect))
        case HoldInvoice() | BuyTicket() | FindTicket() | Pay() | Settle() | Cancel() | MakeOffer() | FetchInvoice() | PayInvoice():
            return await money.run(effect, ports)
        case OpenChannel() | SpliceOut() | PrepareWithdrawal() | SendWithdrawal():
            return await chain.run(effect, ports)
        case Prove() | CheckDispute():
            return await proofs.run(effect, ports)
        case _:
            assert_never(effect)
