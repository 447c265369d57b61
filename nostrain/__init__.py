"""nostrain: train models together over Nostr, be paid in bitcoin for measured work."""

__version__ = "0.1.0"
