"""nostr-sdk as a client: reads one author's events from a relay, says one of its own. Arguments: relay URL, author, how many to read.

Prints {"read": [event, …], "verified": n, "said": event}. A process of its own: nostr-sdk lives on asyncio and on threads.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from datetime import timedelta

import nostr_sdk


async def main(url: str, author: str, count: int) -> None:
    """Read, say, print."""
    client = nostr_sdk.ClientBuilder().build()
    await client.add_relay(nostr_sdk.RelayUrl.parse(url))
    await client.connect()
    wanted = nostr_sdk.Filter().author(nostr_sdk.PublicKey.parse(author)).limit(count)
    read = await client.fetch_events(nostr_sdk.ReqTarget.auto([wanted]), timedelta(seconds=10))
    builder = nostr_sdk.EventBuilder(nostr_sdk.Kind(8650), 'by nostr-sdk: é "\\ \n 🦆').tags([nostr_sdk.Tag.hashtag("nostrain")])
    said = builder.finalize(nostr_sdk.Keys.generate())
    await client.send_event(said)
    events = [json.loads(event.as_json()) for event in read]
    print(json.dumps({"read": events, "verified": sum(event.verify() for event in read), "said": json.loads(said.as_json())}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
    os._exit(0)  # its threads may call into the interpreter while it is being torn down
