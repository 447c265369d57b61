"""What a command does not do in its own process: a module of ours that alone loads what its work needs, or alone may see what it reads."""

from __future__ import annotations

import subprocess
import sys


def run_module(module: str, *arguments: str) -> bytes:
    """What the module prints when it is done; else it said itself why not, and the command ends with its exit code."""
    done = subprocess.run([sys.executable, "-P", "-m", module, *arguments], stdout=subprocess.PIPE, check=False)
    if done.returncode != 0:
        sys.exit(done.returncode)
    return done.stdout
