"""The tensors of a model, read off the table in docs/protocol.md ("The tensors of a model"); nothing of `nostrain` is imported."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "protocol.md"


def page_tensors(model: dict[str, Any]) -> list[tuple[str, tuple[int, ...]]]:
    """Names and shapes, sorted, of the `model` of a run manifest as JSON has it."""
    rows = PAGE.read_text().partition("### The tensors of a model")[2].partition("###")[0]
    head = model["head_dim"] or model["hidden_size"] // model["num_attention_heads"]
    sides = {"h": model["hidden_size"], "m": model["intermediate_size"], "v": model["vocab_size"], "d": head}
    sides |= {"q": model["num_attention_heads"] * head, "k": model["num_key_value_heads"] * head}
    found = {}
    for names, shape, condition in re.findall(r"^\| (`.*?`) \| (.*?) \| (.*?) \|$", rows, re.MULTILINE):
        if holds(condition, model):
            for name in re.findall("`(.*?)`", names):
                for layer in range(model["num_hidden_layers"]):
                    found[name.replace(".L.", f".{layer}.")] = tuple(sides[side] for side in shape.split(" × "))
    return sorted(found.items())


def holds(condition: str, model: dict[str, Any]) -> bool:
    """Whether one row is about this model."""
    if condition.startswith("unless"):
        return not model["tie_word_embeddings"]
    words = condition.replace("`", "").split(", ")
    return words == ["all"] or any(word == model["architecture"] or model.get(word) is True for word in words)
