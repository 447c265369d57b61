"""systemd's notification protocol (sd_notify(3)): READY=1, STATUS=…, STOPPING=1. Silent when not started by systemd."""

from __future__ import annotations

import os
import socket


def notify(message: str) -> None:
    """Send one datagram to $NOTIFY_SOCKET, if there is one; a lost one changes nothing."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.connect(address)
            channel.sendall(message.encode())
    except OSError:
        return
