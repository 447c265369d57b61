"""Public keys in the configuration: `npub1…` (NIP-19), as people copy them, or 64 hex digits. Everything behind this knows hex only."""

from __future__ import annotations

from typing import Any, Final

from nostrain.errors import ConfigError, RemoteProtocolError

KEYS: Final = ("join.coordinator", "join.curators", "blobs.retention.keep", "coordinator.run.validators", "coordinator.run.curators")
"""The settings that name public keys: one, or a list."""


def spell_in_hex(data: dict[str, Any]) -> None:
    """Replace every npub among KEYS by its hex digits. Raises ConfigError for one that is mistyped; anything else is left to the schema."""
    for key in KEYS:
        *tables, last = key.split(".")
        table: object = data
        for name in tables:
            table = table.get(name) if isinstance(table, dict) else None
        if not isinstance(table, dict):
            continue
        value = table.get(last)
        if isinstance(value, list):
            table[last] = [_hex(key, item) for item in value]
        elif value is not None:
            table[last] = _hex(key, value)


def _hex(key: str, value: object) -> object:
    if not isinstance(value, str) or not value.lower().startswith("npub1"):
        return value
    from nostrain.wire.nip19 import parse_npub_untrusted  # curve arithmetic: only for who writes npubs, a configuration loads without

    try:
        return parse_npub_untrusted(value)
    except RemoteProtocolError as error:
        raise ConfigError(key, value[:80], str(error), "Copy the whole npub again, or write 64 hex digits") from None
