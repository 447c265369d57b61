"""The operator's own money: what its Lightning node can carry, the channels that it opens and the coins that it withdraws by policy."""
