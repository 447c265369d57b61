"""Proofs of misbehaviour, built from signed events and checked by anyone, offline and without secrets (design decision 7, section 6)."""
