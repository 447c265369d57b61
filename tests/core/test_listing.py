"""Which validators a round lists when more have enrolled than fit: arrivals count, keys do not."""

from __future__ import annotations

import msgspec

from nostrain.core.listing import listed
from nostrain.core.transaction import Transaction
from nostrain.protocol.limits import MAX_VALIDATORS
from nostrain.units import EventId, Pubkey
from tests.core.actors import MESSAGES, ROUND
from tests.core.onlookers import NOW, Onlooker
from tests.docs.examples import COORDINATOR, START, VALIDATORS

ENROLLED = 7
"""Messages of the round until everybody has enrolled."""


def test_ground_keys_that_come_later_displace_no_validator_who_enrolled_before_the_first_round() -> None:
    node = Onlooker(COORDINATOR.pubkey).hear(ROUND[:ENROLLED])
    body = MESSAGES["enrolment validator 0"].body
    keys = [Pubkey(f"{n:064x}") for n in range(MAX_VALIDATORS)]
    crowd = {key: (EventId(key), START, msgspec.structs.replace(body, oracle=key)) for key in keys}
    run = msgspec.structs.replace(node.run, enrolled={**node.run.enrolled, **crowd})
    _, validators = listed(Transaction(node.state, NOW), run)
    assert len(validators) == MAX_VALIDATORS
    assert {party.pubkey for party in VALIDATORS} <= {entry.pubkey for entry in validators}
