"""`nostrain-ctl`: what a person types. Imports little until a command needs it: `--help` must be instant."""
