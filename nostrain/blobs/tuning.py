"""How patient the Blossom client is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tuning:
    """Times in seconds, rates in bytes a second."""

    attempts: int = 4
    """Rounds over the sources, or tries at a server, before Unavailable."""
    backoff: float = 0.5
    """Longest pause before the second attempt; it doubles from one to the next, and a random part of it is taken."""
    connect: float = 10.0
    silence: float = 20.0
    """A server that says nothing for this long is given up for now."""
    grace: float = 30.0
    """What a transfer may take on top of its size at `min_rate`."""
    min_rate: int = 64 * 1024
    """Slower sources are given up for now."""
    connections: int = 16
    hedge: float = 2.0
    """A server that is not known yet, and has sent nothing for this long, gets another one beside it."""
    laggards: float = 15.0
    """What the other servers may take longer, at least, once one has taken an upload."""
