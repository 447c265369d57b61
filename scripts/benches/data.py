"""`data build`: megabytes of JSONL a second, in bytes and with a tokenizer, beside what one would write by hand around `tokenizers`.

By hand: read all rows, `encode_batch` in the batches of `datasets.map` (1000 rows), one array, one file; nothing is shuffled, held out, hashed or
bounded. Both use the tokenizer's own threads (RAYON_NUM_THREADS).
"""

from __future__ import annotations

import argparse
import json
import shutil
import sysconfig
import tempfile
from pathlib import Path

import numpy as np
from _side_by_side import side_by_side
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

from nostrain.learning.corpus.build import build_dataset
from nostrain.protocol.dataset import BuildDataset

BATCH = 1000


def make_rows(folder: Path, megabytes: int) -> tuple[Path, int]:
    """The sources of this Python's library, as rows of 2 kB or so, again and again; the file and its bytes of text."""
    texts = [path.read_text("utf-8", "replace") for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))]
    rows = [text[at : at + 2000] for text in texts for at in range(0, len(text), 2000)]
    path, written = folder / "rows.jsonl", 0
    with path.open("w") as file:
        copy = 0
        while written < megabytes * 1_000_000:
            for row in rows:
                text = f"{copy} {row}"
                file.write(json.dumps({"text": text}) + "\n")
                written += len(text.encode())
            copy += 1
    return path, written


def make_tokenizer(folder: Path, vocabulary: int) -> Path:
    """A byte-level BPE of this Python's library."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    trainer = BpeTrainer(
        vocab_size=vocabulary, special_tokens=["<|endoftext|>"], initial_alphabet=ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train([str(path) for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))], trainer)
    path = folder / "tokenizer.json"
    tokenizer.save(str(path))
    return path


def by_hand(rows: Path, tokenizer: Path | None, out: Path) -> None:
    """What a script of twenty lines does."""
    texts = [json.loads(line)["text"] for line in rows.open()]
    if tokenizer is None:
        out.write_bytes(b"\0".join(text.encode() for text in texts))
        return
    fast = Tokenizer.from_file(str(tokenizer))
    end = fast.token_to_id("<|endoftext|>")
    parts = []
    for at in range(0, len(texts), BATCH):
        for encoded in fast.encode_batch(texts[at : at + BATCH], add_special_tokens=False):
            parts.append(np.array([*encoded.ids, end], np.uint16))
    np.concatenate(parts).tofile(out)


def ours(rows: Path, tokenizer: Path | None, out: Path) -> None:
    """`data build`, without the start of its process."""
    shutil.rmtree(out, ignore_errors=True)
    build_dataset(BuildDataset((str(rows),), str(out), None if tokenizer is None else str(tokenizer)), print)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=30)
    parser.add_argument("--vocabulary", type=int, default=32_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows, size = make_rows(folder, options.megabytes)
        tokenizer = make_tokenizer(folder, options.vocabulary)
        print(f"{size / 1e6:.1f} MB of text in JSONL; a byte-level BPE of {options.vocabulary} tokens")
        for what, path in (("bytes", None), ("tokenizer", tokenizer)):
            ways = {
                f"{what}: by hand, unshuffled, all in memory": lambda path=path: by_hand(rows, path, folder / "by-hand.bin"),
                f"{what}: data build": lambda path=path: ours(rows, path, folder / "ours"),
            }
            side_by_side(ways, rounds=options.rounds, units=size, unit="B")


if __name__ == "__main__":
    main()
