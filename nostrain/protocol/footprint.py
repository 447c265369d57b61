"""How much memory training and evaluation take: an estimate in whole bytes, made before a run is joined. Measured against it: docs/engines.md.

Two moments decide in training. While it trains, an engine holds four vectors as long as the model (parameters, gradient, AdamW's two moments), the activations
of one micro-batch and the gradient of the largest tensor, which is added to the vector when it is complete: that of the embeddings, or of both their uses. When it makes the delta, gradient and activations are gone, and the residual is there, with the pages of the checkpoint that the training
started from, or, these being gone too, what the coder works with.

Three in evaluation: opening the model, when the pages of its file are there besides; measuring, with all deltas of a round and the activations of one batch;
the outer step, when the deltas are there, the model, and the pages of a checkpoint.
"""

from __future__ import annotations

from typing import Final

from nostrain.protocol.manifest import CodecSpec, ModelSpec, RunManifest, TrainingSpec
from nostrain.protocol.tensors import parameter_count

FLOAT: Final = 4
"""Bytes of a float32."""
TRAINING_BYTES: Final = 4 * FLOAT
"""A parameter, while it is trained."""
ENCODING_BYTES: Final = 5 * FLOAT
"""A parameter, while the delta is made."""
OPENING_BYTES: Final = 2 * FLOAT
"""A parameter, while the model is opened, and in the outer step."""
PLACE_BYTES: Final = 2
"""A value of a delta, as the outer step and a validator hold them."""
INDEX_BYTES: Final = 4
"""More of it, when it is compared which values candidates have in common."""
BASE_BYTES: Final = 512 << 20
"""The process itself: interpreter, framework, libraries, of which numba's are a quarter."""


def training_bytes(model: ModelSpec, micro_batch: int, sequence_length: int, *, checkpointing: bool = False) -> int:
    """Peak memory of an engine that trains `micro_batch` windows of `sequence_length` tokens at once; an eighth on top is the allocator's."""
    parameters = parameter_count(model)
    activations = activation_bytes(model, micro_batch * sequence_length, checkpointing=checkpointing)
    embeddings = FLOAT * model.vocab_size * model.hidden_size * (1 + model.tie_word_embeddings)
    return BASE_BYTES + max(parameters * TRAINING_BYTES + activations + embeddings, parameters * ENCODING_BYTES) * 9 // 8


def activation_bytes(model: ModelSpec, tokens: int, *, checkpointing: bool = False) -> int:
    """What the backward pass needs of the forward pass: of each layer; with `checkpointing` each layer's input, and one layer three times over."""
    layer = layer_width(model)
    layers = model.num_hidden_layers * layer
    if checkpointing:
        layers = min(layers, model.num_hidden_layers * model.hidden_size + 3 * layer)
    return FLOAT * tokens * (layers + 3 * model.vocab_size)


def layer_width(model: ModelSpec) -> int:
    """Values a token that one layer leaves for its backward pass."""
    queries, keys = model.num_attention_heads * model.head_size, model.num_key_value_heads * model.head_size
    return 6 * model.hidden_size + 3 * queries + 3 * keys + 4 * model.intermediate_size


def evaluation_bytes(model: ModelSpec, codec: CodecSpec, tokens: int, candidates: int) -> int:
    """Peak memory of an engine that scores `candidates` deltas in batches of `tokens`; an eighth on top is the allocator's."""
    parameters = parameter_count(model)
    values = candidates * (parameters * codec.topk // codec.chunk)
    forward = FLOAT * tokens * (layer_width(model) + 2 * model.vocab_size)
    measuring = parameters * FLOAT + values * PLACE_BYTES + max(forward, values * INDEX_BYTES)
    stepping = parameters * OPENING_BYTES + values * PLACE_BYTES
    return BASE_BYTES + max(measuring, stepping) * 9 // 8


def needed_bytes(model: ModelSpec, training: TrainingSpec, *, checkpointing: bool = False) -> tuple[int, int]:
    """The least that a worker needs, one window at a time, and what whole batches take."""
    length = training.sequence_length
    least = training_bytes(model, 1, length, checkpointing=checkpointing)
    return least, training_bytes(model, training.batch_size, length, checkpointing=checkpointing)


def evaluation_needs(manifest: RunManifest) -> tuple[int, int]:
    """The least that a validator of a full round needs, with one window at a time, and what whole batches take."""
    length, batch = manifest.training.sequence_length, manifest.scoring.eval_batch
    least, most = (evaluation_bytes(manifest.model, manifest.codec, windows * length, manifest.places) for windows in (1, batch))
    return least, most


def training_in_words(manifest: RunManifest, *, checkpointing: bool = False) -> str:
    """What a worker needs, for people."""
    least, most = needed_bytes(manifest.model, manifest.training, checkpointing=checkpointing)
    return f"{as_memory(least)} to train one window at a time, {as_memory(most)} for whole batches of {manifest.training.batch_size}"


def evaluation_in_words(manifest: RunManifest) -> str:
    """What a validator needs, for people."""
    least, most = evaluation_needs(manifest)
    return f"{as_memory(least)} to evaluate one window at a time, {as_memory(most)} for whole batches of {manifest.scoring.eval_batch}"


def as_memory(size: int) -> str:
    """Bytes as people say them, rounded up."""
    return f"{-(-size // (1 << 20)):,} MiB" if size < 10 << 30 else f"{-(-size // (1 << 30)):,} GiB"


def largest_micro_batch(model: ModelSpec, training: TrainingSpec, memory: int, *, checkpointing: bool = False) -> int:
    """How many windows of a batch fit into `memory` bytes at once; 0: not even one."""
    fits, too_many = 0, training.batch_size + 1
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        if training_bytes(model, middle, training.sequence_length, checkpointing=checkpointing) <= memory:
            fits = middle
        else:
            too_many = middle
    return fits
