"""Signing and sending events."""

from __future__ import annotations

from nostrain.core.effects import Ok, Outcome, Send, Sign, Signed
from nostrain.daemon.ports import Ports
from nostrain.errors import LocalProtocolError, RemoteProtocolError
from nostrain.wire.messages import draft, read_message_untrusted


async def run(effect: Sign | Send, ports: Ports) -> Outcome:
    """Sign and read back, as any reader will; or send. Raises Unavailable, RemoteProtocolError; LocalProtocolError for what nobody would read."""
    if isinstance(effect, Sign):
        event = ports.signer.sign(draft(effect.body, effect.created_at))
        try:
            return Signed(event, read_message_untrusted(event))
        except RemoteProtocolError as error:
            raise LocalProtocolError(f"{effect.owner}: what we are about to say would be refused by everyone: {error}") from error
    if effect.recipient is None:
        await ports.relays.publish(effect.event)
    elif ports.mail is None:
        raise LocalProtocolError("a private message to send, and no mail")
    else:
        await ports.mail.send(effect.event, effect.recipient)
    return Ok()
