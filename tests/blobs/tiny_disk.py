"""Run as a process in a user and mount namespace of its own: fill a Blossom server's file system, make room, and say what happened, as JSON."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import trio

from nostrain.hashes import sha256_hex

from .blossom_world import Server, signer, token

DISK = Path("/mnt")
SIZE = 4 << 20
BLOB = SIZE // 5


async def main() -> dict[str, Any]:
    """Upload until it is refused, look at what is there, delete one blob, upload again."""
    server = Server(DISK)
    server.store._short_of = lambda wanted: -wanted  # type: ignore[method-assign]  # a write shall fail, not the look at what is free
    blobs: dict[str, bytes] = {}
    while True:
        data = os.urandom(BLOB)
        response = await server.put(data)
        if response.status_code != 201:
            break
        blobs[sha256_hex(data)] = data
    intact = [(await server.http.get(f"/{digest}")).content == blob for digest, blob in blobs.items()]
    listed = (await server.http.get(f"/list/{signer('alice').pubkey}")).json()
    victim = next(iter(blobs))
    deleted = await server.http.delete(f"/{victim}", headers={"authorization": token("delete", victim)})
    again = await server.put(data)
    server.store.close()
    return {
        "stored": len(blobs),
        "refused": [response.status_code, "no space left" in response.headers["x-reason"]],
        "intact": sum(intact),
        "listed": len(listed),
        "deleted": deleted.status_code,
        "afterwards": again.status_code,
    }


if __name__ == "__main__":
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(DISK)], check=True)
    print(json.dumps(trio.run(main)))
