"""What a run manifest may ask of those who join it. Everything here was written by a stranger; what passes may still be refused by an engine."""

from __future__ import annotations

from math import isqrt
from typing import Final

import msgspec

from nostrain.core.timing import SAFETY_BLOCKS, blocks_in, held_s
from nostrain.protocol.limits import (
    MAX_BLOB_BYTES,
    MAX_EPOCH_ROUNDS,
    MAX_LEVELS,
    MAX_PARAMETERS,
    MAX_RELAYS,
    MAX_ROUNDS,
    MAX_URL,
    MAX_VALIDATORS,
    MAX_WORKERS,
)
from nostrain.protocol.manifest import RULE_PARAMETERS, BlobRef, RunManifest
from nostrain.protocol.tensors import model_problem, parameter_count
from nostrain.units import PPM

MAX_LEVEL_MSAT: Final = 1 << 44
"""Sixteen levels of it are still an amount that a Lightning node can name."""
MAX_SERVERS: Final = 16
MAX_BATCHES: Final = 32
"""Losses are published batch by batch, for every worker: with the most workers there may be, so many still fit into a verdict."""


def manifest_problem(manifest: RunManifest) -> str | None:
    """The first thing that cannot be, in one line; None when there is nothing."""
    return _people(manifest) or _model(manifest) or _training(manifest) or _scoring(manifest) or _money(manifest) or _room(manifest)


def _people(manifest: RunManifest) -> str | None:
    if not 1 <= manifest.rounds <= MAX_ROUNDS:
        return f"{manifest.rounds} rounds"
    if not 1 <= manifest.threshold <= manifest.min_validators <= MAX_VALIDATORS:
        return f"threshold {manifest.threshold} of {manifest.min_validators} validators"
    if not 1 <= manifest.min_workers <= MAX_WORKERS:
        return f"{manifest.min_workers} workers"
    timing = manifest.timing
    phases = (timing.commit_s, timing.acknowledge_s, timing.reveal_s, timing.verdict_s, timing.attest_s)
    if not all(1 <= seconds <= 86_400 * 30 for seconds in phases) or not 0 <= timing.grace_s <= 3600:
        return "a phase without time, or of more than a month"
    return None


def _model(manifest: RunManifest) -> str | None:
    problem = model_problem(manifest.model)
    if problem is not None:
        return problem
    parameters = parameter_count(manifest.model)
    if parameters > MAX_PARAMETERS:
        return f"{parameters} parameters"
    blobs = (manifest.dataset.size, manifest.checkpoint.size, manifest.max_delta_bytes)
    if not all(1 <= size <= MAX_BLOB_BYTES for size in blobs):
        return "a blob without bytes, or of more than there is room for"
    return checkpoint_problem(manifest, manifest.checkpoint)


def checkpoint_problem(manifest: RunManifest, blob: BlobRef) -> str | None:
    """Why `blob` cannot be a checkpoint of the run's model; None when it may be one."""
    parameters = parameter_count(manifest.model)
    if not 1 <= blob.size <= 4 * parameters + (1 << 20):
        return f"a checkpoint of {blob.size} bytes for {parameters} float32 parameters"
    return None


def _training(manifest: RunManifest) -> str | None:
    training, codec = manifest.training, manifest.codec
    if manifest.delay not in (msgspec.UNSET, 0, 1):
        return f"a delay of {manifest.delay} rounds"
    tokens = training.inner_steps * training.batch_size * training.sequence_length
    if min(training.inner_steps, training.batch_size, training.sequence_length) < 1 or tokens > 1 << 32:
        return f"{tokens} tokens a round"
    square = 1 <= codec.chunk <= 4096 and isqrt(codec.chunk) ** 2 == codec.chunk
    if codec.version != 2 or codec.quantizer_bits not in (1, 2) or not square or not 1 <= codec.topk <= codec.chunk:
        return f"codec version {codec.version}, {codec.topk} of {codec.chunk} values in {codec.quantizer_bits} bits"
    if not 0 <= codec.error_feedback_ppm <= PPM or not 1 <= manifest.outer.alpha_ppm <= 64 * PPM:
        return "error feedback or alpha out of range"
    least, most = RULE_PARAMETERS[manifest.outer.rule]
    if not least <= manifest.outer.parameter <= most:
        return f"the parameter of its rule {manifest.outer.rule} is {manifest.outer.parameter}, outside of {least} to {most}"
    return None


def _scoring(manifest: RunManifest) -> str | None:
    scoring, length = manifest.scoring, manifest.training.sequence_length
    levels = scoring.levels_ppm
    if list(levels) != sorted(set(levels)) or not 1 <= len(levels) <= MAX_LEVELS or not 1 <= levels[0] <= levels[-1] <= 2 * PPM:
        return "its levels do not increase, or lie outside of 0 to 2"
    if scoring.floor_nanonats < 1:
        return "the floor of the normalizer is not positive"
    tokens = (scoring.unassigned_tokens, scoring.assigned_tokens, scoring.validation_tokens)
    if not all(length <= count <= 1 << 32 for count in tokens) or not 1 <= scoring.eval_batch <= 65_536:
        return "evaluation of less than one window, or of more than anyone has"
    return None


def _money(manifest: RunManifest) -> str | None:
    settlement = manifest.settlement
    if not 2 <= settlement.instances <= 16 or not 1 <= settlement.min_final_cltv <= 2016:
        return "cut-and-choose or CLTV out of range"
    if settlement.mode == "hold" and (problem := _schedule(manifest)) is not None:
        return problem
    if settlement.fee_msat and not settlement.ticket_server:
        return "a fee, and nowhere to pay it"
    if not 0 <= settlement.validator_share_ppm <= PPM:
        return f"validators have {settlement.validator_share_ppm} ppm of the fees"
    needed = blocks_in(held_s(manifest)) + SAFETY_BLOCKS
    if settlement.mode == "hold" and settlement.min_final_cltv < needed:
        return f"holds of {settlement.min_final_cltv} blocks, an epoch may need {needed}"
    return None


def _schedule(manifest: RunManifest) -> str | None:
    settlement, level = manifest.settlement, manifest.level_msat
    if not 1 <= settlement.epoch_rounds <= MAX_EPOCH_ROUNDS:
        return f"epochs of {settlement.epoch_rounds} rounds, {MAX_EPOCH_ROUNDS} is the limit"
    if not 1 <= settlement.slots <= MAX_WORKERS:
        return f"a pool for {settlement.slots} workers, a round may list 1 to {MAX_WORKERS}"
    if manifest.min_workers > settlement.slots:
        return f"{manifest.min_workers} workers to begin with, and a pool for {settlement.slots}"
    if not 1 <= level <= MAX_LEVEL_MSAT:
        return f"levels of {level} msat: {settlement.pool_msat} msat for {settlement.slots} workers"
    if settlement.fee_msat * settlement.epoch_rounds > level * len(manifest.scoring.levels_ppm):
        return f"fees of {settlement.epoch_rounds} × {settlement.fee_msat} msat, more than all levels pay"
    return None


def _room(manifest: RunManifest) -> str | None:
    scoring = manifest.scoring
    batches = -(-scoring.unassigned_tokens // (scoring.eval_batch * manifest.training.sequence_length))
    if batches > MAX_BATCHES:
        return f"{batches} batches of losses, a verdict has room for {MAX_BATCHES}"
    if len(manifest.blob_servers) > MAX_SERVERS:
        return f"{len(manifest.blob_servers)} blob servers"
    if len(manifest.relays) > MAX_RELAYS or any(len(url) > MAX_URL for url in manifest.relays):
        return f"{len(manifest.relays)} relays, or an address of more than {MAX_URL} characters"
    return None
