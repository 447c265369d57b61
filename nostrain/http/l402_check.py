"""Whether an L402 token that is shown was minted here and is paid for: the part that tickets and tolls have in common."""

from __future__ import annotations

from typing import Final

from nostrain.crypto.macaroon import is_minted_with, payment_hash_of
from nostrain.errors import RemoteProtocolError
from nostrain.ports.tickets import TicketKeys
from nostrain.ports.tolls import Refusal
from nostrain.wire.l402 import Credentials, is_l402, parse_authorization_untrusted

ASK_L402: Final = (("WWW-Authenticate", "L402"),)
"""Headers of a 401: what was shown does not count."""


def read_credentials_untrusted(header: str) -> Credentials | Refusal:
    """The token in an `Authorization` value, or 400."""
    if not is_l402(header):
        return Refusal(400, "Authorization: not an L402 token")
    try:
        return parse_authorization_untrusted(header)
    except RemoteProtocolError as error:
        return Refusal(400, str(error))


def check_paid(shown: Credentials, keys: TicketKeys) -> Refusal | None:
    """None when we minted the token and the preimage is that of its payment, else 401."""
    if not is_minted_with(shown.macaroon, keys.ticket_key(shown.identifier.token)):
        return Refusal(401, "the token is not one of ours", ASK_L402)
    if payment_hash_of(shown.preimage) != shown.identifier.payment_hash:
        return Refusal(401, "the preimage is not that of the token's payment", ASK_L402)
    return None
