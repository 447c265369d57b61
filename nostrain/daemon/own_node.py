"""The way to the daemon's lightningd: its Unix socket, or its address with a rune from a file."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from nostrain.config.own_node import own_node
from nostrain.config.schema import LightningConfig
from nostrain.core.rows import NodeState
from nostrain.core.treasury.unsettled import unsettled
from nostrain.errors import ConfigError
from nostrain.lightning.commando import NodeAddress, Rune, open_commando
from nostrain.lightning.rpc import ClnRpc, Rpc

MAX_RUNE: Final = 16_384
"""Characters."""
NAMED: Final = 5
"""Of what is outstanding, so much is told in one line."""
_RUNE: Final = re.compile(r"[A-Za-z0-9_-]{43,}={0,2}")


@asynccontextmanager
async def open_rpc(config: LightningConfig) -> AsyncIterator[Rpc | None]:
    """The node's methods, None without a node. Nothing is asked yet. Raises ConfigError."""
    if config.node:
        async with open_commando(NodeAddress(*own_node(config.node)), read_rune(Path(config.rune_file))) as rpc:
            yield rpc
    else:
        yield ClnRpc(Path(config.socket)) if config.socket else None


def none_left(state: NodeState) -> None:
    """Raises ConfigError if the journal's state has anything that only a Lightning node can end: without one it would be lost, not over."""
    found = unsettled(state)
    if found:
        more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
        reason = f"without a Lightning node nothing becomes of what this journal has outstanding: {'; '.join(found[:NAMED])}{more}"
        fix = "Name the same node again until all of it is over (nostrain-ctl earnings, wallet), or give up what is outstanding with an empty data_dir"
        raise ConfigError("lightning.socket", "", reason, fix)


def read_rune(path: Path) -> Rune:
    """The rune in a file that only its owner may read. Raises ConfigError, which does not repeat what is in the file."""
    key, where = "lightning.rune_file", str(path)
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(MAX_RUNE + 1).decode("ascii", errors="replace").strip()
    except OSError as error:
        raise ConfigError(key, where, f"cannot be read: {error.strerror}", "`nostrain-ctl wallet rune` says how to make one") from error
    if not stat.S_ISREG(mode) or mode & 0o077:
        raise ConfigError(key, where, "others can read it", f"chmod 600 {path}")
    if not _RUNE.fullmatch(text) or len(text) > MAX_RUNE:
        raise ConfigError(key, where, "is no rune", "Put into it what `lightning-cli createrune` calls rune, and nothing else")
    return Rune(text)
