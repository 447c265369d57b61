"""Root keys of L402 tickets, derived from the root secret: nothing about an unsold ticket is stored."""

from __future__ import annotations

from nostrain.keys.store import RootSecret


class DerivedTicketKeys:
    """Implements `ports.tickets.TicketKeys`."""

    def __init__(self, root: RootSecret) -> None:
        self._root = root

    def ticket_key(self, token: bytes) -> bytes:
        """The 32-byte macaroon root key of the token of that id."""
        return self._root.ticket_key(token)
