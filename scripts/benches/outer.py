"""The exact outer step at size: 20 deltas from files, θ memory-mapped, the next checkpoint streamed to disk; time and memory by part.

Beside it: what one would write in torch, a dense float32 sum and a subtraction, whose result depends on the order of the deltas, with θ in
memory and nothing hashed. Values are synthetic: positions spread evenly in their chunk, magnitudes drawn a chunk. The files are made once
in `--folder`, which is emptied at the end. Memory is what the process itself holds; mapped pages of files, which the system may take back
at any time, are shown apart.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from nostrain.learning.build import aggregate
from nostrain.learning.engines.base import DEFAULT_OPTIONS
from nostrain.learning.files import read_blob_untrusted
from nostrain.learning.resident import ResidentModel
from nostrain.protocol.jobs import AggregateJob
from nostrain.protocol.manifest import CodecSpec, ModelSpec, OuterSpec, TensorSpec
from nostrain.protocol.tensors import model_tensors
from nostrain.sparseloco.aggregate import caps_of, step_blocks
from nostrain.sparseloco.checkpoint import header_bytes, map_checkpoint_untrusted, merkle_root, write_bytes, write_parts
from nostrain.sparseloco.codec import decode_untrusted
from nostrain.sparseloco.coder import encode_stream
from nostrain.sparseloco.compiled import kernels_for
from nostrain.sparseloco.container import Parts, join, places_of
from nostrain.sparseloco.layout import plan
from nostrain.sparseloco.rules import plan_step
from nostrain.sparseloco.stack import Stack
from nostrain.units import Digest

SIZES = {
    "10m": ModelSpec(hidden_size=256, intermediate_size=1024, num_hidden_layers=10),
    "100m": ModelSpec(hidden_size=768, intermediate_size=2048, num_hidden_layers=14),
    "1b": ModelSpec(hidden_size=2048, intermediate_size=5632, num_hidden_layers=20),
}
CODEC = CodecSpec()


T = TypeVar("T")


class Memory:
    """The most anonymous and the most file-backed memory of this process while the block runs, looked at every 20 ms."""

    def __enter__(self) -> Memory:
        self.own = self.mapped = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        over = False
        while not over:
            over = self._over.wait(0.02)
            held = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
            self.own = max(self.own, int(held["RssAnon"].split()[0]) << 10)
            self.mapped = max(self.mapped, int(held["RssFile"].split()[0]) << 10)


def synthetic_parts(tensors: tuple[TensorSpec, ...], seed: int) -> Parts:
    """What the codec sends, drawn at random: one position of each of k equal parts of a chunk, sign and magnitude bits, two levels (both used)."""
    layout, generator = plan(tensors, CODEC), np.random.default_rng(seed)
    width = np.repeat((layout.lengths // layout.kept).astype(np.int32), layout.kept)
    place = (np.arange(layout.values) - np.repeat(layout.first, layout.kept)).astype(np.int32)
    positions = place * width + generator.integers(0, width, dtype=np.int32)
    codes, two = generator.integers(0, 4, layout.values, np.uint8), layout.kept > 1
    codes[layout.first] &= 2
    codes[layout.first[two] + 1] |= 1
    return Parts(np.full(layout.chunks, 300, np.int64), np.where(two, 10, 0), places_of(positions, codes))


def prepare(folder: Path, tensors: tuple[TensorSpec, ...], count: int) -> list[tuple[Digest, str]]:
    """Write θ and the deltas."""
    generator = np.random.default_rng(0)

    def weights() -> Iterator[bytes | memoryview]:
        yield header_bytes(tensors)
        for tensor in tensors:
            yield (generator.standard_normal(math.prod(tensor.shape), np.float32) * np.float32(0.02)).data.cast("B")

    write_parts(folder / "theta", weights())
    layout, files = plan(tensors, CODEC), []
    coder = kernels_for(layout.size)
    for worker in range(count):
        parts = synthetic_parts(tensors, worker)
        path = folder / f"{worker}.delta"
        blob = write_bytes(path, join((coder.encode_stream if coder else encode_stream)(parts, layout, CODEC)))
        files.append((blob.sha256, str(path)))
    return files


def timed(label: str, work: Callable[[], T]) -> T:
    """Run `work`; print its seconds and memory."""
    with Memory() as memory:
        begin, cpu = time.perf_counter(), time.process_time()
        result = work()
        took, cores = time.perf_counter() - begin, time.process_time() - cpu
    print(
        f"{label:<66} {took:7.2f} s ({cores:7.2f} s of cores)  own {memory.own / 1e9:5.2f} GB, mapped {memory.mapped / 1e9:5.2f} GB",
        flush=True,
    )
    return result


def by_torch(theta: NDArray[np.float32], deltas: list[tuple[torch.Tensor, torch.Tensor]], alpha: float) -> torch.Tensor:
    """A dense float32 sum of all deltas, and one subtraction."""
    total = torch.zeros(len(theta))
    for indices, values in deltas:
        total.index_add_(0, indices, values, alpha=alpha / len(deltas))
    return torch.from_numpy(theta).sub_(total)


def main() -> None:
    """Prepare, measure, clean up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="1b")
    parser.add_argument("--workers", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-torch", action="store_true")
    parser.add_argument("--folder", type=Path, default=None, help="where twice θ and the deltas have room; default: the system's")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    folder = Path(tempfile.mkdtemp(prefix="bench-outer-", dir=options.folder))
    try:
        measure(folder, SIZES[options.size], options)
    finally:
        shutil.rmtree(folder)


def measure(folder: Path, model: ModelSpec, options: argparse.Namespace) -> None:
    """The parts of the job one by one, torch, the job itself."""
    tensors, outer, threads = model_tensors(model), OuterSpec(), options.threads
    files = prepare(folder, tensors, options.workers)
    theta = map_checkpoint_untrusted(folder / "theta", tensors)
    print(
        f"{len(theta):,} parameters, {options.workers} deltas of {Path(files[0][1]).stat().st_size:,} bytes, {threads} threads", flush=True
    )
    parts(theta, tensors, files, threads)
    if not options.no_torch:
        beside(theta, tensors, files)
    job = AggregateJob(model, CODEC, outer, Digest("00" * 32), str(folder / "theta"), tuple(files), len(files), str(folder / "next"))
    result = timed("the whole job, streamed to a file, and that synced", lambda: aggregate(job, ResidentModel(DEFAULT_OPTIONS), threads))
    assert result.checkpoint is not None, result.error


def parts(theta: NDArray[np.float32], tensors: tuple[TensorSpec, ...], files: list[tuple[Digest, str]], threads: int) -> None:
    """What the job does, one after the other. numba is loaded before."""
    Stack(tensors, CODEC, 1).read_untrusted(0, read_blob_untrusted(files[0][1], tensors, CODEC))
    stack = Stack(tensors, CODEC, len(files))

    def read(at: int) -> None:
        stack.read_untrusted(at, read_blob_untrusted(files[at][1], tensors, CODEC))

    with ThreadPoolExecutor(threads) as pool:
        timed("  read and decode the deltas, and their norms", lambda: list(pool.map(read, range(len(files)))))
    step = plan_step(caps_of(stack.squared_norms), OuterSpec(), len(stack))
    next(step_blocks(theta, stack, step))
    timed("  exact outer step", lambda: sum(len(part) for part in step_blocks(theta, stack, step, threads=threads)))
    timed("  hashing: SHA-256 of the file", lambda: hashlib.sha256(theta.data.cast("B")).hexdigest())
    timed("  hashing: Merkle root", lambda: merkle_root(tensors, theta))


def beside(theta: NDArray[np.float32], tensors: tuple[TensorSpec, ...], files: list[tuple[Digest, str]]) -> None:
    """The float32 sum, θ and deltas in memory."""
    in_memory = np.array(theta)
    deltas = [decode_untrusted(read_blob_untrusted(path, tensors, CODEC), tensors, CODEC) for _, path in files]
    ready = [(torch.from_numpy(delta.indices), torch.from_numpy(delta.values())) for delta in deltas]
    del deltas
    timed("beside it: float32 sum and subtraction in torch, all in memory", lambda: by_torch(in_memory, ready, 2.0))


if __name__ == "__main__":
    main()
