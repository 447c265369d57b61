"""`python -m nostrain.learning.export SPEC`: make the folder that SPEC, an `ExportModel` in JSON, describes; print `Exported` as JSON.

Exit status 0, or 1 with one line on standard error, or 130 when interrupted: then nothing is left of the folder.
"""

from __future__ import annotations

import sys

import msgspec

from nostrain.errors import NostrainError
from nostrain.learning.export.folder import export_model
from nostrain.protocol.export import ExportModel


def main(arguments: list[str]) -> int:
    """As the module says; 2 if called wrongly."""
    if len(arguments) != 1:
        tell("usage: python -m nostrain.learning.export SPEC")
        return 2
    try:
        made = export_model(msgspec.json.decode(arguments[0], type=ExportModel))
    except (NostrainError, OSError) as error:
        tell(str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    print(msgspec.json.encode(made).decode())
    return 0


def tell(line: str) -> None:
    """One line on standard error."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
