"""Peak resident memory of an engine process in training and in evaluation, beside what `nostrain.protocol.footprint` says of it before.

    scripts/bench memory [--engine pytorch|mlx] [--size tiny,tiny-64,8m,8m-16,18m,55m,135m] [--job train,evaluate,inspect]

Every figure is that of a process of its own, as the kernel counts it (`wait4`), on the CPU. A worker trains twice, with an outer step between; a
validator evaluates, takes the outer step and validates. Tokens are drawn at random. The largest size takes minutes and 7 GiB.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import msgspec
import numpy as np

from nostrain.errors import LocalProtocolError
from nostrain.learning.frames import Reply, read_frame, write_frame
from nostrain.learning.initial import initial_parameters
from nostrain.protocol.digests import initial_state_id
from nostrain.protocol.engines import EngineKind
from nostrain.protocol.footprint import evaluation_bytes, training_bytes
from nostrain.protocol.jobs import AggregateJob, Candidate, EvaluateJob, InspectJob, Job, JobResult, TrainJob, TrainResult, ValidationJob
from nostrain.protocol.manifest import BlobRef, CodecSpec, ModelSpec, OuterSpec, ScoringSpec, TrainingSpec
from nostrain.protocol.tensors import model_tensors, parameter_count
from nostrain.sparseloco.checkpoint import write_checkpoint
from nostrain.units import Digest, Pubkey

MIB = 1 << 20
STATE = initial_state_id(Digest("0" * 64))
JOBS = ("train", "evaluate", "inspect")


@dataclass(frozen=True)
class Size:
    """A model, windows of `length` tokens, `batch` of them in a step of which `micro` are trained on at once, and so many candidates."""

    model: ModelSpec
    length: int
    batch: int
    micro: int
    candidates: int = 20
    eval_batch: int = 32

    @property
    def training(self) -> TrainingSpec:
        return TrainingSpec(inner_steps=1, batch_size=self.batch, sequence_length=self.length)

    @property
    def scoring(self) -> ScoringSpec:
        tokens = self.eval_batch * self.length
        return ScoringSpec(unassigned_tokens=tokens, assigned_tokens=self.length, validation_tokens=tokens, eval_batch=self.eval_batch)


def model(width: int, inner: int, layers: int, heads: int, vocabulary: int, length: int) -> ModelSpec:
    return ModelSpec(width, inner, layers, heads, heads, vocabulary, length, tie_word_embeddings=vocabulary > 256)


EIGHT = model(256, 768, 8, 4, 256, 256)
SIZES = {
    "tiny": Size(ModelSpec(), 128, 4, 4),
    "tiny-64": Size(ModelSpec(), 128, 64, 64),
    "8m": Size(EIGHT, 256, 2, 2),
    "8m-16": Size(EIGHT, 256, 16, 16),
    "18m": Size(model(512, 1536, 3, 8, 16_384, 128), 128, 8, 8, eval_batch=16),
    "55m": Size(model(512, 1536, 12, 8, 32_000, 256), 256, 4, 4, candidates=8, eval_batch=8),
    "135m": Size(ModelSpec(576, 1536, 30, 9, 3, 49_152, 2048, tie_word_embeddings=True), 512, 2, 1, candidates=4, eval_batch=4),
}


class Engine:
    """An engine process, and the most memory that it ever had."""

    def __init__(self, kind: EngineKind, arguments: Sequence[str] = ()) -> None:
        command = [sys.executable, "-P", "-m", "nostrain.learning", "--engine", kind, "--device", "cpu", *arguments]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def run(self, job: Job) -> JobResult:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        write_frame(self._process.stdin, msgspec.msgpack.encode({"id": 1, "job": job}))
        body = read_frame(self._process.stdout)
        reply = msgspec.msgpack.decode(body, type=Reply) if body is not None else None
        if reply is None or reply.result is None:
            raise LocalProtocolError(reply.error.message if reply is not None and reply.error else "the engine process ended")
        return reply.result

    def close(self) -> int:
        """Bytes."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        _, status, usage = os.wait4(self._process.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        self._process.stdout.close()
        return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class Bench:
    """The files of one size, and the jobs on them."""

    def __init__(self, folder: Path, size: Size, kind: EngineKind) -> None:
        self.folder, self.size, self.kind, self.codec = folder, size, kind, CodecSpec()
        self.checkpoint, self.shard, self.delta = str(folder / "model"), str(folder / "shard"), str(folder / "delta")
        tokens = np.random.default_rng(1).integers(0, size.model.vocab_size, 1 << 18)
        Path(self.shard).write_bytes(tokens.astype("<u2").tobytes())
        self.sent: BlobRef | None = None

    def train(self) -> tuple[int, int]:
        """Measured, estimated."""
        size, engine = self.size, Engine(self.kind, ("--micro-batch", str(self.size.micro)))
        state, after = str(self.folder / "state"), str(self.folder / "after")
        job = TrainJob(
            size.model, size.training, self.codec, self.checkpoint, self.shard, "11" * 32, 0, None, self.delta, state, dtype="uint16"
        )
        made = engine.run(job)
        assert isinstance(made, TrainResult)
        self.sent = made.delta
        engine.run(self.outer_step(after))
        engine.run(msgspec.structs.replace(job, checkpoint=after, state_in=state, delta_out=str(self.folder / "second")))
        return engine.close(), training_bytes(size.model, size.micro, size.length)

    def outer_step(self, after: str) -> AggregateJob:
        assert self.sent is not None
        deltas, count = ((self.sent.sha256, self.delta),) * self.size.candidates, self.size.candidates
        return AggregateJob(self.size.model, self.codec, OuterSpec(), STATE, self.checkpoint, deltas, count, after)

    def evaluate(self) -> tuple[int, int]:
        """As `train`."""
        size, engine = self.size, Engine(self.kind)
        offered = tuple(Candidate(Pubkey(f"{at:064x}"), self.delta, self.shard, "22" * 32) for at in range(size.candidates))
        after = str(self.folder / "after")
        training, scoring = size.training, size.scoring
        for job in (
            EvaluateJob(
                size.model,
                training,
                self.codec,
                OuterSpec(),
                scoring,
                self.checkpoint,
                offered,
                len(offered),
                (self.shard,),
                "33" * 32,
                dtype="uint16",
            ),
            self.outer_step(after),
            ValidationJob(size.model, after, self.shard, scoring.validation_tokens, size.length, size.eval_batch, "uint16"),
        ):
            engine.run(job)
        return engine.close(), evaluation_bytes(size.model, self.codec, size.eval_batch * size.length, size.candidates)

    def inspect(self) -> tuple[int, int]:
        """Measured; nothing is estimated."""
        engine = Engine(self.kind)
        engine.run(InspectJob(self.size.model, self.checkpoint))
        return engine.close(), 0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", choices=get_args(EngineKind), default="pytorch")
    parser.add_argument("--size", default=",".join(SIZES))
    parser.add_argument("--job", default=",".join(JOBS))
    parser.add_argument("--prepare", metavar="FILE", help="only write a first checkpoint")
    options = parser.parse_args()
    if options.prepare:
        spec = SIZES[options.size].model
        write_checkpoint(options.prepare, model_tensors(spec), initial_parameters(spec, 1))
        return
    jobs = options.job.split(",")
    for name in options.size.split(","):
        size = SIZES[name]
        with tempfile.TemporaryDirectory() as folder:
            bench = Bench(Path(folder), size, options.engine)
            # Not in this process: a child's count begins with the most that its parent ever had.
            subprocess.run([sys.executable, __file__, "--prepare", bench.checkpoint, "--size", name], check=True)
            print(f"{name}: {parameter_count(size.model):,} parameters", flush=True)
            for job in JOBS:
                if job in jobs or (job == "train" and "evaluate" in jobs):
                    measured, estimate = getattr(bench, job)()
                    said = f", estimate {estimate / MIB:,.0f} ({estimate / measured - 1:+.0%})" if estimate else ""
                    print(f"  {job:<9} {measured / MIB:8,.0f} MiB{said}", flush=True)


if __name__ == "__main__":
    main()
