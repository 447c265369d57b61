"""`python -I -S undertaker.py`: kills process groups once whoever started them has ended, however that was.

A line on standard input adds a group ("+123") or takes it off again ("-123"). When the input ends, everything that is left is killed: a supervisor
that was itself killed can stop nothing. A file of its own that imports nothing of ours, so that it is there in a few milliseconds.
(The kernel's PR_SET_PDEATHSIG would not do: it is for the thread that started a child, and trio starts them in threads that come and go.)
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable


def left(lines: Iterable[str]) -> set[int]:
    """The groups that were added and not taken off."""
    groups: set[int] = set()
    for line in lines:
        (groups.add if line.startswith("+") else groups.discard)(int(line[1:]))
    return groups


def main() -> None:
    """Wait for the end."""
    for group in left(sys.stdin):
        try:
            # A number that was given to another process since is hardly that of a session's first process as well.
            if os.getsid(group) == group:
                os.killpg(group, signal.SIGKILL)
        except ProcessLookupError:
            continue


if __name__ == "__main__":
    main()
