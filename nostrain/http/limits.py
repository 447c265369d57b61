"""What one peer may cost the HTTP host."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Bounds that the host keeps whatever the application does. Times in seconds, sizes in bytes, rates in bytes a second."""

    max_connections: int = 256
    """Open connections; one more is closed at once."""
    header_timeout: float = 10.0
    """From connection (or the end of the previous request) to the last byte of the request's headers."""
    body_timeout: float = 30.0
    """Grace for a request body, on top of its declared size at `min_rate`."""
    min_rate: int = 16 * 1024
    """The slowest upload that is still waited for."""
    send_timeout: float = 30.0
    """A peer must take each piece of the response (at most 1 MiB) within this time."""
    silence: float = 300.0
    """A connection on which nothing moves for so long is cut, even while the application works on an answer."""
    max_body: int = 1 << 40
    """No request body may be larger, declared or not; the application sets its own, smaller limits."""
    linger: float = 1.0
    """After an early answer: how long the rest of a body is read and dropped, so that the peer sees the answer and not a reset."""
    shutdown_grace: float = 3.0
    """On shutdown: how long requests in progress may go on."""
