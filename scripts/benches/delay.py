"""What delayed application costs in learning: the same run with and without delay, at equal tokens, by the reference loop.

    scripts/bench delay [--rounds 8] [--workers 4] [--seeds 1]

Tiny model, this Python's standard library, the manifest's defaults: what `nostrain-ctl devnet` trains. Every delta is accepted; no relay, no
money, no waiting. The held-out loss is that of validators, after every round, in nat a byte.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import msgspec

from nostrain.learning.dispatch import JobRunner
from nostrain.learning.reference import ReferenceSpec, RoundSpec, repeat_run
from nostrain.protocol.dataset import DatasetManifest
from nostrain.protocol.jobs import BuildRunJob, BuildRunResult, ValidationJob, ValidationResult
from nostrain.protocol.manifest import ModelSpec, RunManifest
from nostrain.units import Pubkey


def losses(seed: int, delay: int, rounds: int, workers: int, folder: Path) -> list[float]:
    """Held-out loss after each round."""
    folder.mkdir()
    runner = JobRunner()
    built = runner.run(BuildRunJob(None, ModelSpec(), seed, 1 << 19, 1 << 18, str(folder)))
    assert isinstance(built, BuildRunResult)
    paths = {blob.sha256: path for blob, path in built.blobs}
    dataset = msgspec.json.decode(Path(paths[built.dataset.sha256]).read_bytes(), type=DatasetManifest)
    manifest = RunManifest(
        name="delay",
        rounds=rounds,
        min_workers=workers,
        min_validators=1,
        threshold=1,
        model=built.model,
        dataset=built.dataset,
        checkpoint=built.checkpoint,
        root=built.root,
        blob_servers=(),
        delay=delay,
    )
    keys = tuple(Pubkey(f"{number:064x}") for number in range(1, workers + 1))
    turns = tuple(RoundSpec(number, keys, keys, workers, trained=keys) for number in range(1, rounds + 1))
    repeat_run(ReferenceSpec(manifest, dataset, paths, turns, str(folder / "work")))
    found = []
    for number in range(1, rounds + 1):
        checkpoint = folder / "work" / f"round-{number:05d}" / "model.safetensors"
        scoring, length = manifest.scoring, manifest.training.sequence_length
        held_out = paths[dataset.validation.sha256]
        measured = runner.run(
            ValidationJob(manifest.model, str(checkpoint), held_out, scoring.validation_tokens, length, scoring.eval_batch)
        )
        assert isinstance(measured, ValidationResult)
        found.append(measured.loss_nanonats / 1e9)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=1)
    asked = parser.parse_args()
    found: dict[int, list[list[float]]] = {0: [], 1: []}
    with tempfile.TemporaryDirectory(prefix="nostrain-") as root:
        for seed in range(asked.seeds):
            for delay, runs in found.items():
                runs.append(losses(seed, delay, asked.rounds, asked.workers, Path(root, f"{seed}-{delay}")))
                print(f"seed {seed}, delay {delay}: {' '.join(f'{loss:.3f}' for loss in runs[-1])}", flush=True)
    print(f"\n{'round':>5}{'d = 0':>9}{'d = 1':>9}{'d = 1 more':>12}")
    for number in range(asked.rounds):
        plain, late = (statistics.mean(run[number] for run in found[delay]) for delay in (0, 1))
        print(f"{number + 1:>5}{plain:>9.3f}{late:>9.3f}{late / plain - 1:>12.1%}")


if __name__ == "__main__":
    main()
