"""The nouns of the protocol as frozen structs. Imports nothing of the project but units, errors and hashes."""
