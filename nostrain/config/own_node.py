"""`lightning.node`: where the operator's lightningd takes connections of other nodes, and who it is."""

from __future__ import annotations

import re
from typing import Final

from nostrain.errors import ConfigError

_NODE: Final = re.compile(r"(?P<id>0[23][0-9a-f]{64})@(?P<host>[^\s@\[\]:]+|\[[0-9a-f:.]+\]):(?P<port>[0-9]{1,5})")


def own_node(text: str) -> tuple[str, str, int]:
    """Id, host and port of `id@host:port`; an IPv6 address is in brackets there, and without them in the result. Raises ConfigError."""
    found = _NODE.fullmatch(text)
    if found is None or not 0 < int(found["port"]) < 1 << 16:
        raise ConfigError("lightning.node", text, "not id@host:port", "Write what `lightning-cli getinfo` says: id, and address or binding")
    return found["id"], found["host"].strip("[]"), int(found["port"])
