"""How much memory training takes: an estimate in whole bytes, made before a run is joined. Measured against it: docs/engines.md.

Two moments decide. While it trains, an engine holds six vectors as long as the model (parameters, the state they started from, gradient, AdamW's two
moments, the residual) and the activations of one micro-batch. While it encodes, gradient and activations are gone, but selecting the largest values takes as
much as six vectors more.
"""

from __future__ import annotations

from typing import Final

from nostrain.protocol.manifest import ModelSpec, TrainingSpec
from nostrain.protocol.tensors import parameter_count

FLOAT: Final = 4
"""Bytes of a float32."""
TRAINING_BYTES: Final = 6 * FLOAT
"""A parameter, while it is trained."""
ENCODING_BYTES: Final = 10 * FLOAT
"""A parameter, while the delta is made."""
BASE_BYTES: Final = 400 << 20
"""The process itself: interpreter, framework, libraries."""


def training_bytes(model: ModelSpec, micro_batch: int, sequence_length: int, *, checkpointing: bool = False) -> int:
    """Peak memory of an engine that trains `micro_batch` windows of `sequence_length` tokens at once; an eighth on top is the allocator's."""
    parameters = parameter_count(model)
    activations = activation_bytes(model, micro_batch * sequence_length, checkpointing=checkpointing)
    return BASE_BYTES + max(parameters * TRAINING_BYTES + activations, parameters * ENCODING_BYTES) * 9 // 8


def activation_bytes(model: ModelSpec, tokens: int, *, checkpointing: bool = False) -> int:
    """What the backward pass needs of the forward pass: of each layer; with `checkpointing` each layer's input, and one layer three times over."""
    queries, keys = model.num_attention_heads * model.head_size, model.num_key_value_heads * model.head_size
    layer = 6 * model.hidden_size + 3 * queries + 3 * keys + 4 * model.intermediate_size
    layers = model.num_hidden_layers * layer
    if checkpointing:
        layers = min(layers, model.num_hidden_layers * model.hidden_size + 3 * layer)
    return FLOAT * tokens * (layers + 3 * model.vocab_size)


def needed_bytes(model: ModelSpec, training: TrainingSpec, *, checkpointing: bool = False) -> tuple[int, int]:
    """The least that a worker needs, one window at a time, and what whole batches take."""
    length = training.sequence_length
    least = training_bytes(model, 1, length, checkpointing=checkpointing)
    return least, training_bytes(model, training.batch_size, length, checkpointing=checkpointing)


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
