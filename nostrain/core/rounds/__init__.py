"""The fold of a round's public events, the same for everyone: who said what, the scores that follow, the result, the epoch it belongs to."""
