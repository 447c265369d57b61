"""One whole paid round of a tiny run, as real signed events with fixed keys: the examples of docs/protocol.md.

    python -m tests.docs.examples     writes the examples into docs/protocol.md, between its example markers

Everything that more than one participant computes is computed here by the code that computes it in the daemon. Only what lies outside of
the events is made up: the blobs' bytes, the checkpoint's root, the losses, and the invoices.
"""

from __future__ import annotations

import re
from typing import Final

from nostrain.core.effects import DrawLocks, LocksDrawn, LocksOpened, LockTerms, OpenLocks
from nostrain.core.rounds.scoring import standings, thermometer
from nostrain.core.timing import deadlines
from nostrain.daemon.runners import locks
from nostrain.hashes import sha256_hex
from nostrain.protocol import messages as m
from nostrain.protocol.digests import (
    commitment_digest,
    initial_state_id,
    next_state_id,
    oracle_event_id,
    receipt_time,
    verdict_digest,
)
from nostrain.protocol.discovery import Pointer, Presence
from nostrain.protocol.event import Event
from nostrain.protocol.manifest import (
    BlobRef,
    CodecSpec,
    ModelSpec,
    OuterSpec,
    RunManifest,
    ScoringSpec,
    SettlementSpec,
    TimingSpec,
    TrainingSpec,
)
from nostrain.units import Digest, Msat, Ppm, UnixTime
from nostrain.wire.discovery import draft_advert, draft_handler, draft_inbox_list, draft_relay_list, draft_server_list
from tests.docs.page import MARKED, PAGE, SHOWN, rendered
from tests.docs.parties import BLOBS, COORDINATOR, ROUNDS, START, VALIDATORS, WORKERS, Party, blob

RELAYS: Final = ("wss://relay.example", "wss://other.example")
SERVERS: Final = ("https://blobs.example", "https://mirror.example")
MODEL: Final = ModelSpec(hidden_size=64, intermediate_size=128, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2)
CODEC: Final = CodecSpec()
OUTER: Final = OuterSpec()
LOSS: Final = 5_545_000_000
GAINS: Final = (31_000_000, 22_000_000, 8_000_000)
CAPS: Final = (61_002, 65_536, 65_536)
"""What the validators measure of each worker: gain in nanonats, c_i in 1/65536. The third falls below the first level."""


class Examples:
    """The round, told in order. `events` maps a label to its event; public ones come in an order in which a reader can take them."""

    def __init__(self) -> None:
        self.events: dict[str, Event] = {}
        self.private: dict[str, Event] = {}
        self._open()
        self._lock()
        self._commit()
        self._judge()
        self._close()
        self._dispute()

    def _say(self, label: str, party: Party, body: m.Body, after: int) -> Event:
        event = self.events[label] = party.says(body, START + after)
        return event

    def _open(self) -> None:
        root = Digest(sha256_hex(b"root of the first checkpoint"))
        self.manifest = RunManifest(
            name="example",
            rounds=ROUNDS,
            min_workers=3,
            min_validators=3,
            threshold=2,
            model=MODEL,
            dataset=blob("dataset manifest", 4_211),
            checkpoint=blob("checkpoint 0", 297_824),
            root=root,
            blob_servers=(BLOBS,),
            training=TrainingSpec(inner_steps=30, batch_size=4, sequence_length=128, learning_rate_ppb=3_000_000, warmup_steps=60),
            codec=CODEC,
            outer=OUTER,
            scoring=ScoringSpec(unassigned_tokens=16_384, assigned_tokens=1_024, validation_tokens=16_384, floor_nanonats=100_000),
            timing=TimingSpec(commit_s=90, acknowledge_s=30, reveal_s=30, verdict_s=90, attest_s=30, grace_s=5),
            settlement=SettlementSpec(
                mode="hold",
                pool_msat=Msat(8_000_000),
                slots=8,
                fee_msat=Msat(50_000),
                ticket_server="http://127.0.0.1:3000",
                instances=2,
            ),
        )
        self.run = self._say("manifest", COORDINATOR, self.manifest, 0).id
        for n, party in enumerate(VALIDATORS):
            body = m.Enrolment(
                run=self.run,
                role="validator",
                name=party.name.replace(" ", "-"),
                engine="pytorch",
                oracle=party.oracle,
                endorsement=party.endorsement(self.run),
                chain_end=party.chain_link(self.run, 0),
                chain_length=ROUNDS,
                offer=party.payout(),
            )
            self._say(f"enrolment validator {n}", party, body, 2)
        for n, party in enumerate(WORKERS):
            body = m.Enrolment(run=self.run, role="worker", name=party.name.replace(" ", "-"), engine="pytorch")
            self._say(f"enrolment worker {n}", party, body, 3)
        self.state_id = initial_state_id(root)
        self.deadlines = deadlines(UnixTime(START + 5), self.manifest)
        self.announcement = m.Announcement(
            run=self.run,
            round=1,
            parent=self.run,
            state_id=self.state_id,
            workers=tuple(party.pubkey for party in WORKERS),
            validators=tuple(party.entry(self.run) for party in VALIDATORS),
            deadlines=self.deadlines,
        )
        self.round_id = self._say("announcement", COORDINATOR, self.announcement, 5).id
        self.oracles: dict[str, tuple[m.OracleItem, ...]] = {}
        for n, party in enumerate(VALIDATORS):
            items = tuple(party.announces(oracle_event_id(self.round_id, w.pubkey), 4, self.deadlines.attest_by, w.pubkey) for w in WORKERS)
            self.oracles[party.name] = items
            self._say(f"oracle announcements {n}", party, m.OracleAnnouncements(self.run, self.round_id, 1, items), 6)

    def _lock(self) -> None:
        """The escrow of the first worker."""
        worker, count = WORKERS[0], self.manifest.settlement.instances
        self.terms = LockTerms(
            network="regtest",
            run=self.run,
            announcement=self.round_id,
            payer=COORDINATOR.pubkey,
            payee=worker.pubkey,
            amounts_msat=(self.manifest.level_msat,) * 4,
            oracles=tuple((index, self.oracles[party.name][0]) for index, party in enumerate(VALIDATORS, start=1)),
            threshold=self.manifest.threshold,
            instances=count,
        )
        seeds = tuple(COORDINATOR.salt(f"level {level}") for level in range(4))
        drawn = locks.run(DrawLocks("payer", "locks", self.terms, seeds))
        assert isinstance(drawn, LocksDrawn)
        head = (self.run, self.round_id, 1)
        digests = tuple(item.digest for _, item in self.terms.oracles)
        offer = COORDINATOR.says(m.Offer(*head, worker.pubkey, self.terms.amounts_msat, digests, drawn.instances), START + 8)
        self.chosen = (1, 0, 0, 1)
        choice = worker.says(m.Choice(*head, offer.id, self.chosen), START + 9)
        opened = locks.run(OpenLocks("payer", "open", self.terms, seeds, self.chosen))
        assert isinstance(opened, LocksOpened)
        openings = COORDINATOR.says(m.Openings(*head, offer.id, opened.seeds, opened.locks), START + 10)
        bolt11 = tuple(f"lnbcrt2500n1example-on-{lock.payment_hash[:16]}" for lock in opened.locks)
        invoices = worker.says(m.Invoices(*head, offer.id, bolt11), START + 11)
        self.private = {"offer": offer, "choice": choice, "openings": openings, "invoices": invoices}

    def _commit(self) -> None:
        self.deltas = [blob(f"delta of {party.name}", 1_218) for party in WORKERS]
        pins: list[Event] = []
        for n, (party, delta) in enumerate(zip(WORKERS, self.deltas, strict=True)):
            digest = commitment_digest(party.pubkey, self.round_id, party.salt("commitment"), delta)
            pins.append(self._say(f"commitment {n}", party, m.Commitment(self.run, self.round_id, 1, digest, self.state_id), 40 + n))
        receipt = m.Receipt(self.run, self.round_id, 1, tuple(sorted(event.id for event in pins)))
        when = receipt_time(self.deadlines.commit_by, True, [event.created_at for event in pins])
        self.receipt = self._say("receipt", COORDINATOR, receipt, when - START).id
        for n, party in enumerate(VALIDATORS):
            body = m.Acknowledgement(self.run, self.round_id, 1, self.receipt, party.chain_link(self.run, 1))
            self._say(f"acknowledgement {n}", party, body, 44)
        for n, (party, delta, pin) in enumerate(zip(WORKERS, self.deltas, pins, strict=True)):
            self._say(f"reveal {n}", party, m.Reveal(self.run, self.round_id, 1, pin.id, party.salt("commitment"), delta), 46 + n)

    def _judge(self) -> None:
        before = tuple(LOSS + 4_000_000 * batch for batch in range(4))
        verdicts: list[m.Verdict] = []
        for n, party in enumerate(VALIDATORS):
            gains = tuple(gain + 300_000 * n for gain in GAINS)
            scores = tuple(
                m.Score(
                    worker=worker.pubkey,
                    weight=weight,
                    gain=gain,
                    losses_after=tuple(loss - gain for loss in before),
                    assigned_gain=gain + 3_100_000,
                    provenance=2_900_000,
                    provenance_se=800_000,
                    overlap_round_ppm=Ppm(161_000),
                )
                for worker, gain, weight in zip(WORKERS, gains, CAPS, strict=True)
            )
            verdict = m.Verdict(self.run, self.round_id, 1, self.receipt, party.salt("verdict"), self.state_id, before, scores)
            verdicts.append(verdict)
            digest = verdict_digest(party.pubkey, verdict)
            self._say(f"verdict hash {n}", party, m.VerdictHash(self.run, self.round_id, 1, self.receipt, digest), 60 + n)
        ids = [self._say(f"verdict {n}", VALIDATORS[n], verdict, 64).id for n, verdict in enumerate(verdicts)]
        self.standings = standings(verdicts, self.announcement.workers, self.manifest.scoring, {})
        for n, party in enumerate(VALIDATORS):
            told = zip(self.oracles[party.name], WORKERS, strict=True)
            items = tuple(party.attests(item, thermometer(self.standings[w.pubkey].level, 4)) for item, w in told)
            self._say(f"attestation {n}", party, m.Attestation(self.run, self.round_id, 1, self.receipt, tuple(sorted(ids)), items), 66)

    def _close(self) -> None:
        cited = tuple(sorted(self.events[f"attestation {n}"].id for n in range(3)))
        accepted, refused = [], []
        for worker, delta, weight in zip(WORKERS, self.deltas, CAPS, strict=True):
            standing = self.standings[worker.pubkey]
            if standing.level:
                accepted.append(m.Accepted(worker.pubkey, BlobRef(delta.sha256, delta.size), weight, standing.level))
            else:
                refused.append(m.Refused(worker.pubkey, standing.reason or ""))
        digests, caps = [item.delta.sha256 for item in accepted], [item.weight for item in accepted]
        after = next_state_id(self.state_id, digests, caps, OUTER, len(WORKERS))
        root = Digest(sha256_hex(b"root of the second checkpoint"))
        checkpoint = blob("checkpoint 1", 297_824)
        result = m.Result(self.run, self.round_id, 1, cited, tuple(accepted), tuple(refused), len(WORKERS), after, root, checkpoint)
        closed = self._say("result", COORDINATOR, result, 70)
        for n, party in enumerate(VALIDATORS[:1]):
            body = m.Confirmation(self.run, self.round_id, 1, closed.id, after, root, 5_502_113_000)
            self._say(f"confirmation {n}", party, body, 73)

    def _dispute(self) -> None:
        """What happened if the third validator signed a second verdict hash. The round knows nothing of it."""
        other = m.VerdictHash(self.run, self.round_id, 1, self.receipt, Digest(sha256_hex(b"another verdict")))
        self.contradiction = VALIDATORS[2].says(other, START + 63)
        evidence = tuple(sorted((self.events["verdict hash 2"].id, self.contradiction.id)))
        body = m.Dispute(self.run, "equivocation", VALIDATORS[2].pubkey, evidence)
        self.claims = {"dispute": WORKERS[0].says(body, START + 75)}

    def adverts(self) -> dict[str, Event]:
        """By what the run and its participants are found."""
        pointer = Pointer(self.run, "example", ROUNDS, 1, "running", len(WORKERS), len(VALIDATORS), RELAYS)
        presence = Presence(self.run, "worker", WORKERS[0].name, 1, "training")
        return {
            "run pointer": COORDINATOR.signer.sign(draft_advert(pointer, UnixTime(START + 71))),
            "presence": WORKERS[0].signer.sign(draft_advert(presence, UnixTime(START + 80))),
            "relay list": WORKERS[0].signer.sign(draft_relay_list(RELAYS, START)),
            "inbox relays": WORKERS[0].signer.sign(draft_inbox_list(RELAYS, START)),
            "blob servers": WORKERS[0].signer.sign(draft_server_list(SERVERS, START)),
            "handler information": COORDINATOR.signer.sign(draft_handler(START)),
        }


def filled(page: str) -> str:
    """`page` with every example between its markers replaced by the one made here."""
    examples = Examples()
    everything = examples.events | examples.private | examples.claims | examples.adverts()

    def replaced(found: re.Match[str]) -> str:
        return f"<!-- example: {found[1]} -->\n{rendered(everything[SHOWN[found[1]]])}<!-- end -->"

    return MARKED.sub(replaced, page)


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text()))
