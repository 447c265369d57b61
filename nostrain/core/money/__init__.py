"""Everything that money hangs on: escrows (payer and payee), offers, tickets, the validators' share, what our channels can carry."""
