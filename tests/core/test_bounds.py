"""What a manifest may ask of those who join: the defaults pass, and each thing that cannot be is named."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from nostrain.core.bounds import manifest_problem
from nostrain.protocol.manifest import BlobRef, ModelSpec, RunManifest, TensorSpec
from nostrain.units import Digest

DIGEST = Digest("ab" * 32)
MANIFEST = RunManifest(
    name="a run",
    rounds=8,
    min_workers=4,
    min_validators=3,
    threshold=2,
    model=ModelSpec(),
    tensors=(TensorSpec("a", (4, 4)), TensorSpec("b", (4,))),
    dataset=BlobRef(DIGEST, 1000),
    checkpoint=BlobRef(DIGEST, 500),
    root=DIGEST,
    blob_servers=("http://127.0.0.1:1",),
)


def changed(path: str, value: Any) -> RunManifest:
    """The manifest with one field, `part.field` or `field`, set to `value`."""
    part, _, field = path.rpartition(".")
    if not part:
        return msgspec.structs.replace(MANIFEST, **{field: value})
    return msgspec.structs.replace(MANIFEST, **{part: msgspec.structs.replace(getattr(MANIFEST, part), **{field: value})})


def test_the_defaults_are_acceptable() -> None:
    assert manifest_problem(MANIFEST) is None


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("rounds", 0, "0 rounds"),
        ("rounds", 1 << 40, "rounds"),
        ("threshold", 4, "threshold 4 of 3"),
        ("threshold", 0, "threshold 0"),
        ("min_validators", 1000, "validators"),
        ("min_workers", 0, "0 workers"),
        ("timing.commit_s", 0, "a phase without time"),
        ("timing.verdict_s", -1, "a phase without time"),
        ("timing.grace_s", 1 << 20, "a phase"),
        ("tensors", (), "no tensors"),
        ("tensors", (TensorSpec("a", ()),), "an empty one"),
        ("tensors", (TensorSpec("a", (0, 4)),), "an empty one"),
        ("tensors", (TensorSpec("a", (1 << 20, 1 << 20)),), "parameters"),
        ("tensors", (TensorSpec("b", (4,)), TensorSpec("a", (4,))), "not sorted"),
        ("dataset", BlobRef(DIGEST, 0), "a blob without bytes"),
        ("checkpoint", BlobRef(DIGEST, 10 << 30), "a checkpoint of 10737418240 bytes"),
        ("max_delta_bytes", -1, "a blob without bytes"),
        ("training.inner_steps", 0, "tokens a round"),
        ("training.batch_size", 1 << 40, "tokens a round"),
        ("codec.version", 2, "codec version 2"),
        ("codec.topk", 5000, "5000 of 4096"),
        ("codec.error_feedback_ppm", 1_000_001, "error feedback"),
        ("outer.alpha_ppm", 0, "alpha"),
        ("scoring.levels_ppm", (), "levels"),
        ("scoring.levels_ppm", (500_000, 400_000), "levels"),
        ("scoring.levels_ppm", (0, 400_000), "levels"),
        ("scoring.floor_nanonats", 0, "floor"),
        ("scoring.unassigned_tokens", 1, "less than one window"),
        ("scoring.eval_batch", 0, "evaluation"),
        ("settlement.instances", 1, "cut-and-choose"),
        ("settlement.min_final_cltv", 100_000, "CLTV"),
        ("settlement.mode", "hold", "hold invoices of nothing"),
    ],
)
def test_each_thing_that_cannot_be_is_named(path: str, value: Any, named: str) -> None:
    problem = manifest_problem(changed(path, value))
    assert problem is not None
    assert named in problem
