"""The money of a round: its escrows (payer and payee), offers, tickets, and the validators' share of the fees."""
