"""docs/protocol.md and its examples: which event is shown where, and how."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import msgspec

from nostrain.protocol.event import Event
from nostrain.wire.event import encode_event

PAGE: Final = Path(__file__).parents[2] / "docs" / "protocol.md"
SHOWN: Final = {
    "manifest": "manifest",
    "enrolment": "enrolment validator 0",
    "announcement": "announcement",
    "oracle announcements": "oracle announcements 0",
    "offer": "offer",
    "choice": "choice",
    "openings": "openings",
    "invoices": "invoices",
    "commitment": "commitment 0",
    "receipt": "receipt",
    "acknowledgement": "acknowledgement 0",
    "reveal": "reveal 0",
    "verdict hash": "verdict hash 0",
    "verdict": "verdict 0",
    "attestation": "attestation 0",
    "result": "result",
    "confirmation": "confirmation 0",
    "dispute": "dispute",
    "run pointer": "run pointer",
    "presence": "presence",
    "relay list": "relay list",
    "inbox relays": "inbox relays",
    "blob servers": "blob servers",
    "handler information": "handler information",
}
"""Example on the page → event of the round."""

MARKED: Final = re.compile(r"<!-- example: ([a-z ]+) -->\n.*?<!-- end -->", re.DOTALL)


def rendered(event: Event) -> str:
    """The event as the page shows it: its content readable, then the whole event as it travels."""
    whole = encode_event(event).decode()
    if not event.content:
        return f"```json event\n{whole}\n```\n"
    content = msgspec.json.format(event.content.encode(), indent=2).decode()
    return (
        f"Content:\n\n```json content\n{content}\n```\n\n<details><summary>The signed event</summary>\n\n"
        f"```json event\n{whole}\n```\n\n</details>\n"
    )
