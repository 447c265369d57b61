"""Who may say what in a round, and that it is said once: what every fold of a round's messages asks first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeVar

from nostrain.core.rows import Round
from nostrain.core.run import Equivocation, with_item
from nostrain.core.waiting import Orphan, receipt_key
from nostrain.errors import RemoteProtocolError
from nostrain.protocol.messages import Message, Receipt, ValidatorEntry
from nostrain.units import EventId, Pubkey

T = TypeVar("T")

MAX_ALTERNATIVES: Final = 64
"""Different commitments or thermometers of one author that are remembered in a round; honest authors have one."""


def first(known: Mapping[Pubkey, T], message: Message, word: T, before: object) -> Mapping[Pubkey, T]:
    """`known` with `word` as its author's first. `before` is the body that the author said before, if any: the same again is nothing new."""
    if before is None:
        return with_item(known, message.author, word)
    if before != message.body:
        raise Equivocation(said(message), "contradicts what its author said before", whose=message.author[:8])
    return known


def said(message: Message) -> str:
    """The kind of thing that was said, for error messages."""
    return "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in type(message.body).__name__).strip()


def worker(round_: Round, message: Message) -> Pubkey:
    """The author, if the announcement lists it as a worker."""
    if message.author not in round_.announcement.workers:
        raise RemoteProtocolError(said(message), "by someone who is no worker of this round", whose=message.author[:8])
    return message.author


def validator(round_: Round, message: Message) -> ValidatorEntry:
    """The author's entry, if the announcement lists it as a validator."""
    for entry in round_.announcement.validators:
        if entry.pubkey == message.author:
            return entry
    raise RemoteProtocolError(said(message), "by someone who is no validator of this round", whose=message.author[:8])


def need_receipt(round_: Round, receipt: EventId) -> Receipt:
    """The round's receipt if it is the one named. Raises Orphan before it is known, RemoteProtocolError for another one."""
    if round_.receipt is None:
        raise Orphan(receipt_key(round_.id))
    if round_.receipt[0] != receipt:
        raise RemoteProtocolError("message", f"names another receipt, {receipt[:8]}")
    return round_.receipt[1]
