"""From what the engine built to the manifest: few uploads at a time, and limits that follow from the model."""

from __future__ import annotations

import msgspec
import pytest

from nostrain.core.bounds import manifest_problem
from nostrain.core.effects import Compute, Computed, Upload, Uploaded
from nostrain.core.identity import RunPlan
from nostrain.core.preparation import MOST_UPLOADS, build_job, built
from nostrain.core.rows import Outbox, Preparation
from nostrain.errors import ConfigError
from nostrain.protocol.jobs import BuildRunResult
from nostrain.protocol.manifest import BlobRef, ModelSpec, RunManifest, TrainingSpec
from nostrain.protocol.tensors import parameter_count
from nostrain.units import Digest, UnixTime
from nostrain.wire.curation import curation_draft
from tests.core.actors import EXAMPLES, Node, blob
from tests.docs.examples import COORDINATOR, VALIDATORS

PLAN = RunPlan(
    "run", 8, 3, 2, 2, None, 1, 1, 1, ("http://b",), "/work", dataset="/data", init="/init", training=TrainingSpec(learning_rate_ppb=7)
)
BLOBS = tuple((blob(f"blob {at}", 10), f"/data/{at}") for at in range(10))


def result(model: ModelSpec) -> BuildRunResult:
    size = 4 * parameter_count(model)
    checkpoint = BlobRef(EXAMPLES.manifest.checkpoint.sha256, size)
    return BuildRunResult(EXAMPLES.manifest.dataset, checkpoint, EXAMPLES.manifest.root, BLOBS, 100, model)


def test_the_job_names_dataset_and_checkpoint() -> None:
    job = build_job(PLAN)
    assert (job.dataset, job.init, job.least_tokens) == ("/data", "/init", (128, PLAN.scoring.validation_tokens))


@pytest.mark.parametrize(
    ("model", "length", "delta_bytes"),
    [
        (ModelSpec(), 128, 1 << 20),
        (ModelSpec(max_position_embeddings=64), 64, 1 << 20),
        (
            ModelSpec(hidden_size=2048, intermediate_size=5632, num_hidden_layers=22, vocab_size=32_000, max_position_embeddings=2048),
            128,
            None,
        ),
    ],
)
def test_windows_and_the_largest_delta_follow_from_the_model(model: ModelSpec, length: int, delta_bytes: int | None) -> None:
    manifest = built(PLAN, result(model))
    assert manifest.training == TrainingSpec(learning_rate_ppb=7, sequence_length=length)
    assert manifest.max_delta_bytes == (delta_bytes or parameter_count(model) // 16)
    assert manifest.model == model
    assert manifest_problem(manifest) is None


def test_uploads_go_a_few_at_a_time() -> None:
    node = Node(COORDINATOR, "coordinator", plan=PLAN)
    node.ends(node.asked(Compute, "build"), Computed(result(ModelSpec())))
    seen = []
    while asked := node.asks(Upload):
        assert len(asked) <= MOST_UPLOADS
        seen.append(asked[0].blob.sha256)
        node.ends(asked[0], Uploaded(("http://b/x",)))
    assert sorted(seen) == sorted(ref.sha256 for ref, _ in BLOBS)
    assert isinstance(node.row("outbox/manifest", Outbox).body, RunManifest)
    assert node.row("preparation", Preparation).missing == ()


def test_a_dataset_that_is_not_the_signed_one_any_more_is_refused() -> None:
    event = VALIDATORS[0].signer.sign(curation_draft(Digest("ab" * 32), "", UnixTime(1)))
    node = Node(COORDINATOR, "coordinator", plan=msgspec.structs.replace(PLAN, curations=(event,)))
    with pytest.raises(ConfigError, match="not the one that was signed"):
        node.ends(node.asked(Compute, "build"), Computed(result(ModelSpec())))
    good = VALIDATORS[0].signer.sign(curation_draft(EXAMPLES.manifest.dataset.sha256, "", UnixTime(1)))
    assert built(msgspec.structs.replace(PLAN, curations=(good,)), result(ModelSpec())).curations == (good,)
