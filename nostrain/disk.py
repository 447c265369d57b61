"""What every writer of files owes the disk besides the data of the file.

At the bottom of the tree because journal, wallet, blob store and codec all rename files into place, and none of them may import another.
"""

from __future__ import annotations

import os
from pathlib import Path


def fsync_folder(folder: Path) -> None:
    """Make creations, renames and removals in `folder` durable. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
