"""`python -m nostrain.learning.corpus SPEC`: build the dataset that SPEC, a `BuildDataset` in JSON, describes; print `Built` as JSON.

Exit status 0, or 1 with one line on standard error, or 130 when interrupted. Bad rows are told there too.
"""

from __future__ import annotations

import sys

import msgspec

from nostrain.learning.corpus.build import build_dataset
from nostrain.learning.corpus.errors import CorpusError
from nostrain.protocol.dataset import BuildDataset


def main(arguments: list[str]) -> int:
    """As the module says; 2 if called wrongly."""
    if len(arguments) != 1:
        tell("usage: python -m nostrain.learning.corpus SPEC")
        return 2
    try:
        built = build_dataset(msgspec.json.decode(arguments[0], type=BuildDataset), tell)
    except (CorpusError, OSError) as error:
        tell(str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    print(msgspec.json.encode(built).decode())
    return 0


def tell(line: str) -> None:
    """One line on standard error."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
