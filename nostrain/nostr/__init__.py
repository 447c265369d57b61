"""Nostr relays: the adapter behind `ports.relays`. Sans-IO parts (messages, cursor, backoff) below, trio above (connection, pool)."""
