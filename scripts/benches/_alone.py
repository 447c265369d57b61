"""The rounds of a worker with nothing of ours beside it: its daemon's engine process, the same jobs in the same order; `link.py` starts it.

    _alone.py FOLDER CORE ROUNDS DELAY

Prints a line of JSON a round: seconds of the training, its encoding and our outer step, and processor seconds of all. The engine process is started as a daemon starts it
(`compose.engine_settings`): above all with the same few environment variables. With all of ours, an `OPENBLAS_CORETYPE` of this shell once made it
compute half as long again as the engines of the devnet.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import _cpu
import msgspec
import trio

from nostrain.config.schema import EngineConfig
from nostrain.daemon.compose import engine_settings
from nostrain.engine.process import EngineProcess
from nostrain.protocol.assignment import assigned_ahead
from nostrain.protocol.dataset import DatasetManifest
from nostrain.protocol.digests import initial_state_id
from nostrain.protocol.jobs import AggregateJob, AggregateResult, BuildRunJob, BuildRunResult, OwnStep, TrainJob, TrainResult
from nostrain.protocol.manifest import CodecSpec, ModelSpec, OuterSpec, TrainingSpec
from nostrain.units import Pubkey

WORKER = Pubkey("ab" * 32)
SHARD_BYTES = 512 * 1024
"""As the devnet's."""


async def rounds(folder: Path, count: int, delayed: bool) -> None:
    """Train, encode, step: each round from the state that the one before led to; in a delayed run one behind, and the own step further on."""
    spec, codec, outer, training = ModelSpec(), CodecSpec(), OuterSpec(), TrainingSpec()
    async with EngineProcess.open(engine_settings(EngineConfig(threads=1), folder)) as engine:
        built = await engine.run(BuildRunJob(None, spec, 1, SHARD_BYTES, SHARD_BYTES, str(folder)))
        assert isinstance(built, BuildRunResult)
        paths = {blob.sha256: path for blob, path in built.blobs}
        manifest = await trio.Path(paths[built.dataset.sha256]).read_bytes()
        dataset = msgspec.json.decode(manifest, type=DatasetManifest)
        here = before = (initial_state_id(built.root), paths[built.checkpoint.sha256])
        own = state = None
        for number in range(1, count + 1):
            state_id, checkpoint = before if delayed else here
            work = assigned_ahead(state_id, number, WORKER, len(dataset.shards))
            shard, computed = paths[dataset.shards[work.shard].sha256], _cpu.of_children()
            delta, kept, steps = str(folder / f"{number}.delta"), str(folder / f"{number}.state"), (number - 1) * training.inner_steps
            made = await engine.run(
                TrainJob(spec, training, codec, checkpoint, shard, work.seed, steps, state, delta, kept, own=own if delayed else None)
            )
            assert isinstance(made, TrainResult)
            begin = time.perf_counter()
            after = str(folder / f"{number}.model")
            stepped = await engine.run(AggregateJob(spec, codec, outer, here[0], here[1], ((made.delta.sha256, delta),), 1, after))
            assert isinstance(stepped, AggregateResult)
            assert stepped.state_id is not None
            took, computed = time.perf_counter() - begin, _cpu.of_children() - computed
            line = {"train": made.train_ms / 1000, "encode": made.encode_ms / 1000, "outer": took, "computed": computed}
            print(json.dumps(line), flush=True)
            before, here = here, (stepped.state_id, after)
            own, state = OwnStep(outer, made.delta.sha256, delta, 1), kept


def main() -> None:
    """Run on one core."""
    folder, core, count, delay = sys.argv[1:]
    os.sched_setaffinity(0, {int(core)})
    trio.run(rounds, Path(folder), int(count), delay == "1")


if __name__ == "__main__":
    main()
