"""`README.md` of an exported model: what is known of it, and nothing that is not."""

from __future__ import annotations

from nostrain.protocol.export import FloatType, ModelState, RunModel, Vocabulary
from nostrain.protocol.tensors import parameter_count

_BYTES = """A token is a byte of UTF-8, and its number is the byte: there is no tokenizer. Byte {end} ends a document.

```python
ids = list("text".encode())
text = bytes(ids).decode(errors="replace")
```"""


def model_card(source: RunModel, state: ModelState, dtype: FloatType) -> str:
    """The card in Markdown. The run's name is its coordinator's word, kept from being markup."""
    model = source.model
    facts = [
        ("run", f"`{source.run}`"),
        ("named", f"`{_plain(source.name)}`"),
        ("coordinator", f"`{source.coordinator}`"),
        ("round", f"{state.round} of {source.rounds}"),
        ("state id", f"`{state.state_id}`"),
        ("Merkle root (of the float32 checkpoint)", f"`{state.root}`"),
        ("dataset (SHA-256 of its manifest)", f"`{source.dataset}`"),
        ("model", f"{model.architecture}, {parameter_count(model):,} parameters, in {dtype}"),
    ]
    rows = "\n".join(f"| {name} | {value} |" for name, value in facts)
    return f"""---
library_name: transformers
---

# A model trained with nostrain

| | |
|---|---|
{rows}

The weights are those of the state above: their Merkle root was compared. A licence is not part of a run: ask its coordinator, also for that of the data.

## Tokens

{_tokens(source.vocabulary)}
"""


def _tokens(vocabulary: Vocabulary | None) -> str:
    if vocabulary is None:
        return "The dataset's manifest, which says what tokens are, was not at hand when this was written."
    if vocabulary.tokenizer is None:
        return _BYTES.format(end=vocabulary.separator)
    end = f"Token {vocabulary.separator} ends a document."
    if vocabulary.path is None:
        return f"The tokenizer is the file with the SHA-256 `{vocabulary.tokenizer.sha256}`, which was not at hand. {end}"
    return f"`tokenizer.json` is the one that the dataset was built with. {end}"


def _plain(text: str) -> str:
    return "".join(letter if letter.isprintable() and letter not in "`|" else "?" for letter in text)
