"""`python -m nostrain.daemon`: the same as `nostraind`."""

from nostrain.daemon.main import main

main()
