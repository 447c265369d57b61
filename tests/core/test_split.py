"""What each validator has earned of a round's fees: a function of signed events, the same for everybody."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from nostrain.core.escrow.split import counted, pool, shares
from nostrain.core.rows import Round, Run
from nostrain.protocol.messages import Result
from nostrain.units import PPM, Msat, Ppm
from tests.core.actors import MESSAGES, ROUND, Node
from tests.core.shares import EACH, FEE, KEYS, LEVELS, closed
from tests.docs.examples import WORKERS


def test_the_examples_validators_share_half_of_three_fees() -> None:
    node = closed()
    assert pool(node.run, node.round) == LEVELS * FEE // 2
    assert shares(node.run, node.round) == dict.fromkeys(KEYS, EACH)


def test_strangers_compute_what_the_coordinator_does_in_any_order() -> None:
    backwards = Node(WORKERS[0]).hear(reversed(ROUND))
    assert shares(backwards.run, backwards.round) == shares(closed().run, closed().round)


def altered(**changes: object) -> tuple[Run, Round]:
    node = closed()
    result = node.round.result
    assert result is not None
    body = msgspec.structs.replace(result[1], **{name: value for name, value in changes.items() if hasattr(result[1], name)})
    rest = {name: value for name, value in changes.items() if not hasattr(body, name)}
    return node.run, msgspec.structs.replace(node.round, result=(result[0], body), **rest)


def test_only_verdicts_that_t_cited_attestations_name_count() -> None:
    cited = MESSAGES["result"].body
    assert isinstance(cited, Result)
    named = {event_id: author for event_id, (author, _) in closed().round.attestations.items()}
    two = tuple(event_id for event_id in cited.attestations if named[event_id] != KEYS[2])
    assert counted(*altered(attestations=two)) == KEYS[:2], "whose attestation is not cited has no share"
    assert shares(*altered(attestations=two)) == dict.fromkeys(KEYS[:2], Msat(LEVELS * FEE // 2 // 2)), "the pool stays whole"
    assert counted(*altered(attestations=two[:1])) == (), "one attestation is fewer than t"
    assert counted(*altered(attestations=())) == ()
    node = closed()
    unnamed = {
        event_id: (author, msgspec.structs.replace(body, verdicts=tuple(v for v in body.verdicts if v != MESSAGES["verdict 2"].id)))
        for event_id, (author, body) in node.round.attestations.items()
    }
    assert counted(*altered(attestations=cited.attestations)[:1], msgspec.structs.replace(node.round, attestations=unnamed)) == KEYS[:2]


def test_two_attestations_of_one_author_name_a_verdict_once() -> None:
    node = closed()
    (first,) = [body for author, body in node.round.attestations.values() if author == KEYS[0]]
    more = {**node.round.attestations, "ab" * 32: (KEYS[0], first)}
    result = node.round.result
    assert result is not None
    body = msgspec.structs.replace(result[1], attestations=tuple(event_id for event_id, (author, _) in more.items() if author == KEYS[0]))
    row = msgspec.structs.replace(node.round, attestations=more, result=(result[0], body))
    assert counted(node.run, row) == ()


def test_nothing_is_earned_without_a_result_a_fee_or_a_share() -> None:
    node = closed()
    assert shares(node.run, msgspec.structs.replace(node.round, result=None)) == {}
    for name in ("fee_msat", "validator_share_ppm"):
        settlement = msgspec.structs.replace(node.run.manifest.settlement, **{name: 0})
        run = msgspec.structs.replace(node.run, manifest=msgspec.structs.replace(node.run.manifest, settlement=settlement))
        assert set(shares(run, node.round).values()) <= {0}
        assert pool(run, node.round) == 0


@given(fee=st.integers(0, 10**9), ppm=st.integers(0, PPM))
def test_the_shares_never_exceed_the_fees(fee: int, ppm: int) -> None:
    node = closed()
    settlement = msgspec.structs.replace(node.run.manifest.settlement, fee_msat=Msat(fee), validator_share_ppm=Ppm(ppm))
    run = msgspec.structs.replace(node.run, manifest=msgspec.structs.replace(node.run.manifest, settlement=settlement))
    found = shares(run, node.round)
    assert len(set(found.values())) <= 1
    assert 0 <= sum(found.values()) <= pool(run, node.round) <= LEVELS * fee
    assert pool(run, node.round) - sum(found.values()) < len(KEYS)
