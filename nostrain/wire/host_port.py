"""Where a Lightning node is: an IP address or a version 3 onion service, and a port.

Names of the DNS are not taken: what one leads to is decided by whoever owns it, when we look, and may be inside our own network.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

_ONION: Final = re.compile(r"[a-z2-7]{56}\.onion")
_PORT: Final = re.compile(r"[1-9][0-9]{0,4}")


def address_problem(address: str) -> str | None:
    """What is wrong with `host:port`, or None: IPv6 stands in brackets."""
    host, separator, port = address.rpartition(":")
    if not separator or not _PORT.fullmatch(port) or int(port) > 65535:
        return "not host:port"
    if _ONION.fullmatch(host):
        return None
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        found = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return "neither an IP address nor an onion service"
    if bracketed is not (found.version == 6) or getattr(found, "scope_id", None):
        return "an IPv6 address without brackets, or with a zone" if found.version == 6 else "an IPv4 address in brackets"
    return None
