"""The first validator of the examples, brought to each stage of its duty."""

from __future__ import annotations

import msgspec

from nostrain.core.effects import (
    ChainLink,
    Compute,
    Computed,
    Draw,
    Drawn,
    Fetch,
    Fetched,
    LinkRead,
    OracleAnnounce,
    OracleAnnounced,
)
from nostrain.core.rows import Duty
from nostrain.core.tables import DutyState
from nostrain.protocol.jobs import CandidateScore, EvaluateJob, EvaluateResult
from nostrain.protocol.messages import Message, Verdict
from tests.core.actors import EXAMPLES, LABELS, MESSAGES, Node, until
from tests.docs.examples import VALIDATORS

D = DutyState
ME = VALIDATORS[0]
KEY = f"duty/{EXAMPLES.round_id}"
MINE = {"oracle announcements 0", "acknowledgement 0", "verdict hash 0", "verdict 0", "attestation 0"}


def others(first: str, last: str) -> list[Message]:
    """What everybody else says between two labels."""
    return [MESSAGES[label] for label in LABELS[LABELS.index(first) : LABELS.index(last) + 1] if label not in MINE]


def state(node: Node) -> DutyState:
    return node.row(KEY, Duty).state


def announced() -> Node:
    """The round is open, our thermometers are announced."""
    node = Node(ME, "validator").hear(until("announcement")).ready().at(6)
    node.ends(node.asked(OracleAnnounce), OracleAnnounced(EXAMPLES.oracles[ME.name]))
    node.speak()
    return node


def acknowledged() -> Node:
    """The receipt is acknowledged."""
    node = announced().hear(others("oracle announcements 1", "receipt")).at(44)
    node.ends(node.asked(Draw, "salt"), Drawn(ME.salt("verdict")))
    node.ends(node.asked(ChainLink), LinkRead(ME.chain_link(EXAMPLES.run, 1)))
    node.speak()
    return node


def fetched(node: Node, *missing: int) -> Node:
    """Every file that it asks for comes, but for the deltas of some workers."""
    gone = {EXAMPLES.deltas[n].sha256 for n in missing}
    while asked := [effect for effect in node.asks(Fetch) if effect.blob.sha256 not in gone]:
        for effect in asked:
            node.ends(effect, Fetched(f"/blobs/{effect.blob.sha256}"))
    return node


def evaluating(*missing: int) -> Node:
    """All is revealed and fetched."""
    node = acknowledged().hear(others("acknowledgement 1", "reveal 2")).at(48)
    return fetched(node, *missing)


def measured(job: EvaluateJob) -> EvaluateResult:
    """What the examples' first validator measures."""
    verdict = MESSAGES["verdict 0"].body
    assert isinstance(verdict, Verdict)
    by_worker = {score.worker: score for score in verdict.scores}
    scores = tuple(msgspec.convert(msgspec.structs.asdict(by_worker[one.worker]), CandidateScore) for one in job.candidates)
    return EvaluateResult(verdict.losses_before, scores, 16_384, 1)


def hashed() -> Node:
    """The verdict is made, its hash is out."""
    node = evaluating()
    effect = node.asked(Compute)
    assert isinstance(effect.job, EvaluateJob)
    node.ends(effect, Computed(measured(effect.job)))
    node.speak()
    return node


def opened() -> Node:
    """Every hash is there, so our verdict is out."""
    node = hashed().hear(others("verdict hash 1", "verdict hash 2"))
    node.speak()
    return node


def attesting() -> Node:
    """Every verdict is there."""
    return opened().hear(others("verdict 1", "verdict 2"))
