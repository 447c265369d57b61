"""Bytes ⇄ protocol: Nostr events and their bodies, DLC TLVs. Readers of network bytes end in `_untrusted`."""
