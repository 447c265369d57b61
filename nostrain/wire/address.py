"""On-chain addresses that money may be sent to: segwit ones (BIP 173, BIP 350), of the right network."""

from __future__ import annotations

from typing import Final

# pynostr's plain bech32 module, as in wire/nip19.py.
from pynostr import bech32

PREFIXES: Final = {"bitcoin": "bc", "testnet": "tb", "signet": "tb", "regtest": "bcrt"}
"""By lightningd's name of the network."""


def withdrawal_problem(address: str, network: str) -> str | None:
    """Why nothing can be sent to `address` on that network, or None."""
    found, _, _ = bech32.bech32_decode(address)
    if found is None:
        return "not a segwit address, or its checksum is wrong"
    if found != PREFIXES[network]:
        return f"not an address of {network}, which begin with {PREFIXES[network]}1"
    version, program = bech32.decode(found, address)
    if version is None or program is None:
        return "not a segwit address"
    if version > 1 or (version == 1 and len(program) != 32):
        return "of a segwit version that wallets do not have yet"
    return None
