"""A whole network on loopback, for development and tests: relay, payments, participants, report."""
