"""What a regtest network needs of the machine: programs on PATH, ports on loopback."""

from __future__ import annotations

import shutil
import socket
from typing import Final

NEEDED: Final = ("bitcoind", "bitcoin-cli", "lightningd")
"""lightningd itself asks bitcoind through bitcoin-cli."""


def missing() -> list[str]:
    """The programs that are not on PATH; empty: a network can be started."""
    return [name for name in NEEDED if shutil.which(name) is None]


def free_ports(count: int) -> list[int]:
    """TCP ports that nobody listened on a moment ago, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()
