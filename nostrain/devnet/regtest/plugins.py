"""Our hold plugin as two programs that lightningd can run, of the very code that is running here, installed or not."""

from __future__ import annotations

import sys
from pathlib import Path

import nostrain
from nostrain.holdplugin.plugin import FIRST, STANDBY


def write_hold_plugin(folder: Path) -> Path:
    """Write both programs into `folder`; the one for `--plugin`, which starts the other."""
    root = str(Path(nostrain.__file__).parents[1])
    for program, function in ((FIRST, "main"), (STANDBY, "standby")):
        path = folder / program
        path.write_text(
            f"#!{sys.executable}\nimport sys\n\nsys.path.insert(0, {root!r})\nfrom nostrain.holdplugin.plugin import {function}\n\n{function}()\n"
        )
        path.chmod(0o700)
    return folder / FIRST
