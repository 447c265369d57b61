"""The HTTP host of the daemon: hypercorn on trio behind limits that hold against hostile peers. What it serves is handed in."""
