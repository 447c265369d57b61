"""What a validator's oracle says: credentials, chain links, announcements, attestations."""

from __future__ import annotations

import base64
import sqlite3

from nostrain.core.effects import (
    ChainLink,
    Credentials,
    CredentialsRead,
    Failed,
    LinkRead,
    OracleAnnounce,
    OracleAnnounced,
    OracleAttest,
    OracleAttested,
    Outcome,
)
from nostrain.daemon.ports import Ports
from nostrain.errors import LocalProtocolError, Unavailable
from nostrain.ports.signer import Oracle
from nostrain.protocol.digests import endorsed_text
from nostrain.units import Pubkey
from nostrain.wire.messages import attestation_item_untrusted, oracle_item_untrusted


async def run(effect: Credentials | ChainLink | OracleAnnounce | OracleAttest, ports: Ports) -> Outcome:
    """Raises LocalProtocolError when there is no oracle, Unavailable while its journal cannot be read or written: nothing was signed then.

    An attestation that the oracle will not make is `Failed`: the node falls silent.
    """
    oracle = ports.oracle
    if oracle is None:
        raise LocalProtocolError("a validator's effect, and no oracle")
    try:
        return await ports.offload(lambda: answer(effect, oracle, ports.signer.pubkey))
    except sqlite3.OperationalError as error:
        raise Unavailable(f"oracle journal: {error}") from error


def answer(effect: Credentials | ChainLink | OracleAnnounce | OracleAttest, oracle: Oracle, pubkey: Pubkey) -> Outcome:
    """Blocking: the oracle journals before it signs."""
    match effect:
        case Credentials():
            end = oracle.chain_end(effect.run, effect.chain_length)
            endorsement = oracle.endorse(pubkey, endorsed_text(effect.run, end, effect.chain_length))
            return CredentialsRead(oracle.pubkey, endorsement, end)
        case ChainLink():
            return LinkRead(oracle.chain_link(effect.run, effect.chain_length, effect.index))
        case OracleAnnounce():
            announced = [(payee, oracle.announce(event_id, effect.digits, effect.maturity)) for payee, event_id in effect.events]
            return OracleAnnounced(tuple(oracle_item_untrusted(payee, base64.b64encode(tlv).decode()) for payee, tlv in announced))
        case OracleAttest():
            try:
                attested = [(payee, oracle.attest(base64.b64decode(tlv), digits)) for tlv, payee, digits in effect.outcomes]
            except LocalProtocolError as error:  # announced before a restore from backup, or another outcome was signed
                return Failed(str(error))
            return OracleAttested(tuple(attestation_item_untrusted(payee, base64.b64encode(tlv).decode()) for payee, tlv in attested))
