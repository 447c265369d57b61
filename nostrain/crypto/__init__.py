"""The cryptography of the protocol: BIP-340, oracle points, the threshold lock, hash chains. Pure; raw bytes inside, hex at its edges."""
