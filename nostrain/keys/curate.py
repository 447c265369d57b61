"""`python -m nostrain.keys.curate FOLDER DIGEST NAME TIME`: sign a dataset with the key in FOLDER, which is made if there is none; the event as JSON.

A process of its own, which `nostrain-ctl data sign` runs: no other part of the command line touches a key.
"""

from __future__ import annotations

import sys
from pathlib import Path

from nostrain.errors import ConfigError
from nostrain.keys.signer import NostrSigner
from nostrain.keys.store import open_root
from nostrain.units import Digest, UnixTime, is_hex32
from nostrain.wire.curation import curation_draft
from nostrain.wire.event import encode_event


def main(arguments: list[str]) -> int:
    """Exit status 0; 1 with one line when the key cannot be used; 2 if called wrongly."""
    if len(arguments) != 4 or not is_hex32(arguments[1]) or not arguments[3].isdigit():
        print("usage: python -m nostrain.keys.curate FOLDER DIGEST NAME TIME", file=sys.stderr)
        return 2
    folder, dataset, name, now = arguments
    try:
        signer = NostrSigner(open_root(Path(folder)))
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    print(encode_event(signer.sign(curation_draft(Digest(dataset), name, UnixTime(int(now))))).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
