"""`python -P -m nostrain.daemon.guard LOCK PARENT MODULE [ARGUMENT…]`: run MODULE, the engine, so that it neither outlives nor overtakes its daemon.

A daemon that was killed leaves its engine process in the middle of a job. That process ends within a second, because it watches whether the
process PARENT is still its parent; and until it has, the engine of the restarted daemon waits for LOCK, so that two of them never write the
same output files. The lock is the kernel's (`flock`): it goes with its holder, however that ends.
"""

from __future__ import annotations

import fcntl
import os
import runpy
import sys
import threading
import time

POLL_S = 0.5
EXIT_ORPHAN = 3


def main() -> None:
    """Watch the parent, take the lock, become the engine."""
    lock, parent, module = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    threading.Thread(target=watch, args=(parent,), daemon=True, name="guard").start()
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)  # never closed: held for the life of the process
    sys.argv = [module, *sys.argv[4:]]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def watch(parent: int) -> None:
    """End the process, whatever it is doing, once its parent is another one. Output files are written under temporary names and renamed."""
    while os.getppid() == parent:
        time.sleep(POLL_S)
    os._exit(EXIT_ORPHAN)


if __name__ == "__main__":
    main()
