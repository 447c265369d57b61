"""The sole holder of secrets: signs events, attests each digit once, keeps the hash chain. Everything derives from one root secret."""
