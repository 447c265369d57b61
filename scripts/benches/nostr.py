"""From the JSON of an event to a verified one: ours (strict parse, id, Schnorr, then the message), nostr-sdk's, pynostr's; one thread each."""

from __future__ import annotations

import argparse
import json

import nostr_sdk
from _side_by_side import side_by_side
from pynostr.event import Event as PynostrEvent

from nostrain.keys.signer import NostrSigner
from nostrain.keys.store import RootSecret
from nostrain.protocol.messages import Commitment
from nostrain.units import Digest, EventId, UnixTime
from nostrain.wire.event import encode_event, parse_event_untrusted
from nostrain.wire.messages import draft, read_message_untrusted


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    signer = NostrSigner(RootSecret(bytes(range(32))))
    texts = []
    for number in range(options.events):
        body = Commitment(EventId("aa" * 32), EventId("bb" * 32), 1, Digest(f"{number:064x}"), Digest("cc" * 32))
        texts.append(encode_event(signer.sign(draft(body, UnixTime(1_750_000_000 + number)))).decode())

    def ours() -> None:
        for text in texts:
            read_message_untrusted(parse_event_untrusted(text))

    def sdk() -> None:
        for text in texts:
            assert nostr_sdk.Event.from_json(text).verify()

    def pynostr() -> None:
        for text in texts:
            assert PynostrEvent.from_dict(json.loads(text)).verify()

    ways = {"nostrain: event and message": ours, "nostr-sdk: Event.from_json + verify": sdk, "pynostr: Event.from_dict + verify": pynostr}
    side_by_side(ways, rounds=options.rounds, units=options.events, unit="events")


if __name__ == "__main__":
    main()
