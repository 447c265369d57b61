"""Run as a process in a user and mount namespace of its own: a devnet whose blob server's disk fills up in the first round; what came of it, as JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import trio

from nostrain.devnet import report
from nostrain.devnet.layout import Options
from nostrain.devnet.supervisor import open_devnet
from nostrain.hashes import sha256_hex

SIZE = 160 << 20
"""Of the disk: what the store never uses (64 MiB), and room for this run."""


def fill(path: Path) -> None:
    """Leave no room for blobs."""
    free = os.statvfs(path.parent).f_bavail * os.statvfs(path.parent).f_frsize
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free - (1 << 20))


async def main(root: Path, seed: int) -> dict[str, Any]:
    """Two rounds; the disk is full from the first announcement until both workers were refused with 507."""
    disk = root / "coordinator" / "blobs"
    disk.mkdir(parents=True)
    await trio.run_process(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(disk)])
    options = Options(rounds=2, workers=2, validators=2, seed=seed, paid=False)
    async with open_devnet(root, options, print) as devnet:
        workers = [one for one in devnet.participants if one.role == "worker"]

        def refused() -> list[str]:
            return [one.name for one in workers if "HTTP 507" in one.log.read_text()]

        await devnet.wait_for(lambda: 1 in devnet.observer.rounds and "announced" in devnet.observer.rounds[1].seen)
        fill(disk / "filler")
        await devnet.wait_for(lambda: len(refused()) == len(workers))
        (disk / "filler").unlink()
        await devnet.wait_for(lambda: devnet.observer.done)
        accepted = [watched.round.result[1].accepted if watched.round.result else () for watched in devnet.observer.rounds.values()]
        blobs = list(disk.glob("??/*"))
        return {
            "faults": report.agreement(devnet.observer),
            "accepted": [len(one) for one in accepted],
            "refused": refused(),
            "blobs": len(blobs),
            "damaged": [path.name for path in blobs if sha256_hex(path.read_bytes()) != path.name],
        }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="nd", dir="/tmp") as folder:
        try:
            told = trio.run(main, Path(folder), int(sys.argv[1]))
        finally:
            subprocess.run(["umount", "-l", f"{folder}/coordinator/blobs"], check=False)
    print(json.dumps(told))
