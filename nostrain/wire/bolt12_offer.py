"""BOLT 12 offers (`lno1…`): a strict reader of any, and the writer of what the simnet makes.

Source: BOLT 12, "Offers". Of the fields, all are checked; those that say whom and on which chain one may pay are kept.
"""

from __future__ import annotations

from typing import Final

import msgspec

from nostrain.units import Msat
from nostrain.wire.bolt12 import Records, Values, merkle_root, read_records_untrusted, write_records

PREFIX: Final = "lno"
CHAINS, METADATA, CURRENCY, AMOUNT, DESCRIPTION, FEATURES, EXPIRY, PATHS, ISSUER, QUANTITY, ISSUER_ID = range(2, 24, 2)
OFFER_RANGES: Final = (range(1, 80), range(1_000_000_000, 2_000_000_000))
OFFER_TYPES: Final = frozenset(range(2, 24, 2))
GENESIS: Final = {
    "bitcoin": "6fe28c0ab6f1b372c1a6a246ae63f74f931e8365e15a089c68d6190000000000",
    "testnet": "43497fd7f826957108f4a30fd9cec3aeba79972084e90ead01ea330900000000",
    "signet": "f61eee3b63a380a477a063af32b2bbc97c9ff9f01f2c4225e973988108000000",
    "regtest": "06226e46111a0b59caaf126043eb5bbf28c34f3a5e332a1fc7b2b73cf188910f",
}
"""Genesis block hash in wire order, by lightningd's name of the network. An offer without chains is for bitcoin."""


class Bolt12Offer(msgspec.Struct, frozen=True):
    """What an offer says. `chains` are genesis hashes; `signers` the keys one of which signs its invoices; `amount_msat` what it asks for.

    `currency` is set when the amount is in another unit. `fixed`: it asks for something that a payer may not choose, an amount or a quantity.
    """

    records: Records
    chains: tuple[str, ...]
    signers: tuple[str, ...]
    amount_msat: Msat | None = None
    currency: str | None = None
    description: str | None = None
    expires_at: int | None = None
    quantity_max: int | None = None

    @property
    def offer_id(self) -> str:
        """As lightningd names it: the Merkle root, hex."""
        return merkle_root(self.records).hex()

    @property
    def networks(self) -> tuple[str, ...]:
        """Names of the networks that it is for, of those that we know."""
        return tuple(name for name, genesis in GENESIS.items() if genesis in self.chains)

    @property
    def open(self) -> bool:
        """Whether one may pay any amount, and for one thing at a time: what takes a share of the fees."""
        return self.amount_msat is None and self.quantity_max is None


def parse_offer_untrusted(text: str) -> Bolt12Offer:
    """Read an offer. Raises RemoteProtocolError for whatever a reader must not respond to; its date is the caller's to look at."""
    records = read_records_untrusted(PREFIX, text)
    values = Values(records, "offer")
    values.check_types(OFFER_TYPES, OFFER_RANGES)
    values.features(FEATURES)
    for kind in (CURRENCY, DESCRIPTION, ISSUER):
        if values.has(kind):
            values.text(kind)
    amount = values.amount(AMOUNT) if values.has(AMOUNT) else None
    if amount is not None and not values.has(DESCRIPTION):
        raise values.fault("an amount without a description")
    if amount is None and values.has(CURRENCY):
        raise values.fault("a currency without an amount")
    signers = tuple(path.hops[-1][0] for path in values.paths(PATHS)) if values.has(PATHS) else ()
    if values.has(ISSUER_ID):
        signers = (values.point(ISSUER_ID),)
    if not signers:
        raise values.fault("neither issuer nor path")
    return Bolt12Offer(
        records=records,
        chains=values.chains(CHAINS) if values.has(CHAINS) else (GENESIS["bitcoin"],),
        signers=signers,
        amount_msat=amount,
        currency=values.text(CURRENCY) if values.has(CURRENCY) else None,
        description=values.text(DESCRIPTION) if values.has(DESCRIPTION) else None,
        expires_at=values.integer(EXPIRY) if values.has(EXPIRY) else None,
        quantity_max=values.integer(QUANTITY) if values.has(QUANTITY) else None,
    )


def encode_offer(network: str, description: str, issuer_id: str) -> str:
    """An offer of any amount."""
    records: dict[int, bytes] = {} if network == "bitcoin" else {CHAINS: bytes.fromhex(GENESIS[network])}
    records |= {DESCRIPTION: description.encode()} if description else {}
    return write_records(PREFIX, records | {ISSUER_ID: bytes.fromhex(issuer_id)})
