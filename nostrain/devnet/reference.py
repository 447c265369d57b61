"""`--reference`: repeat the run in one process, outside all of this, and compare its checkpoint digest of every round with the published one."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import msgspec
import trio

from nostrain.core.rounds.scoring import pinned
from nostrain.core.rows import Run
from nostrain.devnet.observer import Observer
from nostrain.engine.child import engine_environment
from nostrain.errors import Unavailable
from nostrain.protocol.dataset import DatasetManifest
from nostrain.protocol.digests import ranked
from nostrain.protocol.engines import DEVICES


def spec(observer: Observer, folders: Sequence[Path], work_dir: Path) -> dict[str, Any]:
    """What the loop is told: manifest, dataset, who took part in each round in order of slot, whose delta was used, what each trains with.

    No state and no digest.
    """
    run = cast("Run", observer.run)
    files = [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
    blobs = {hashlib.sha256(path.read_bytes()).hexdigest(): str(path) for path in files}
    dataset = msgspec.json.decode(Path(blobs[run.manifest.dataset.sha256]).read_bytes(), type=DatasetManifest)
    rounds = []
    for number, watched in sorted(observer.rounds.items()):
        announcement, result = watched.round.announcement, watched.round.result
        if result is None or (not result[1].accepted and not run.manifest.delayed):
            continue
        rounds.append(
            {
                "round": number,
                "workers": ranked(announcement.state_id, announcement.workers),
                "accepted": [item.worker for item in result[1].accepted],
                "committed": len(pinned(watched.round)),
                "attempt": watched.round.attempt,
                "trained": sorted({author for author, _, _ in watched.round.commitments.values()}),
                "shown": sorted(watched.round.reveals),
            }
        )
    engines = {pubkey: enrolment.engine for pubkey, (_, _, enrolment) in run.enrolled.items() if enrolment.engine in DEVICES}
    return {
        "manifest": run.manifest,
        "dataset": dataset,
        "blobs": blobs,
        "rounds": rounds,
        "engines": engines,
        "work_dir": str(work_dir),
    }


def write_spec(observer: Observer, folders: Sequence[Path], path: Path) -> None:
    """Write what the loop is told; makes the folder, which is also the loop's work folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.encode(spec(observer, folders, path.parent)))


async def compare(observer: Observer, folders: Sequence[Path], work_dir: Path) -> dict[str, Any]:
    """Run the loop in a process of its own, in the environment of an engine; `{"match": bool, "rounds": [{round, root, state_id, match}]}`.

    Raises Unavailable if it fails.
    """
    spec_path, out_path = work_dir / "spec.json", work_dir / "out.json"
    write_spec(observer, folders, spec_path)
    command = [sys.executable, "-m", "nostrain.learning.reference", str(spec_path), str(out_path)]
    environment = engine_environment(os.environ, threads=1)  # variables like OPENBLAS_CORETYPE change last bits, and with them digests
    done = await trio.run_process(command, capture_stderr=True, stdin=subprocess.DEVNULL, check=False, env=environment)
    if done.returncode != 0:
        last = (done.stderr or b"").decode(errors="replace").strip().splitlines()[-1:]
        raise Unavailable(f"the reference loop failed: {' '.join(last)}")
    rounds = []
    for state in msgspec.json.decode(out_path.read_bytes()):
        published = observer.rounds[state["round"]].round.result
        same = published is not None and (published[1].state_id, published[1].root) == (state["state_id"], state["root"])
        rounds.append({"round": state["round"], "root": state["root"], "state_id": state["state_id"], "match": same})
    return {"match": bool(rounds) and all(entry["match"] for entry in rounds), "rounds": rounds}
