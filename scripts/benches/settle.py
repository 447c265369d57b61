"""Escrows of a whole round on the simnet or on real nodes: seconds offered → locked → settled, HTLCs a second, CPU of an escrow and what of it is cryptography.

It drives the escrows itself, as payer and payee do but without engines, relays and journals: a round's list has at most 20 workers in this version,
and what is measured here is the money. All payees and the payer share one process; the simnet is another one, each real node several.
`--lightning regtest` takes bitcoind and lightningd from PATH; `--workers` then says how many nodes there are beside the payer's.
"""

from __future__ import annotations

import argparse
import secrets
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import trio
from _settle_network import HUB, Network, running

from nostrain.crypto import instances, lock, schnorr
from nostrain.crypto.oracle import attestation_scalar, outcome_message, outcome_point
from nostrain.crypto.points import base_multiply, encode_point, scalar_from_bytes
from nostrain.lightning.client import ClnLightning
from nostrain.ports.lightning import HoldState, PayResult
from nostrain.units import Digest, EventId, Msat, Pubkey

LEVEL_MSAT = Msat(100_000)
CLTV = 80
START_S = 30.0
WATCH_S = 0.02


@dataclass
class Oracle:
    """A validator's oracle: its key, and fresh nonces for each payee."""

    index: int
    key: bytes
    nonces: dict[int, tuple[int, ...]] = field(default_factory=dict)

    def announce(self, payee: int, levels: int) -> lock.LockOracle:
        """Draw nonces for one payee."""
        drawn = tuple(scalar_from_bytes(sha256(secrets.token_bytes(32)).digest()) for _ in range(levels))
        self.nonces[payee] = drawn
        points = tuple(encode_point(base_multiply(nonce))[1:].hex() for nonce in drawn)
        return lock.LockOracle(self.index, Pubkey(schnorr.public_key(self.key).hex()), Digest(secrets.token_hex(32)), points)

    def attest(self, payee: int) -> list[int]:
        """Every digit as 1: all levels are released."""
        message = outcome_message("1")
        return [attestation_scalar(schnorr.sign_with_nonce(self.key, nonce, message)) for nonce in self.nonces[payee]]


@dataclass
class Escrow:
    """One worker's thermometer."""

    name: str
    lightning: ClnLightning
    contexts: list[lock.LockContext]
    seeds: list[bytes]
    digests: list[tuple[Digest, ...]] = field(default_factory=list)
    chosen: list[int] = field(default_factory=list)
    openings: list[instances.Opening] = field(default_factory=list)
    bolt11: list[str] = field(default_factory=list)
    scalars: dict[int, list[int]] = field(default_factory=dict)
    preimages: list[str] = field(default_factory=list)


class Stages:
    """Wall seconds, our CPU and the network's CPU of each stage."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self.rows: dict[str, tuple[float, float, float]] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure what happens inside."""
        wall, own, theirs = time.perf_counter(), time.process_time(), self._network.cpu()
        yield
        self.rows[name] = (time.perf_counter() - wall, time.process_time() - own, self._network.cpu() - theirs)

    def sum(self, names: Sequence[str]) -> tuple[float, float, float]:
        """Of several stages."""
        wall, own, theirs = zip(*(self.rows[name] for name in names), strict=True)
        return sum(wall), sum(own), sum(theirs)


def draw(escrow: Escrow, threshold: int, count: int) -> None:
    """The payer: commit to the instances of every level."""
    escrow.digests = [
        instances.commit_instances(seed, ctx, threshold, count) for seed, ctx in zip(escrow.seeds, escrow.contexts, strict=True)
    ]


def choose_and_open(escrow: Escrow, threshold: int, count: int) -> None:
    """The payer's answer to the payee's choice."""
    escrow.chosen = [secrets.randbelow(count) for _ in escrow.seeds]
    each = zip(escrow.seeds, escrow.chosen, escrow.contexts, strict=True)
    escrow.openings = [instances.open_instances(seed, chosen, ctx, threshold, count) for seed, chosen, ctx in each]


def check(escrow: Escrow, threshold: int, count: int) -> None:
    """The payee: recompute everything that was opened."""
    for digests, chosen, opening, ctx in zip(escrow.digests, escrow.chosen, escrow.openings, escrow.contexts, strict=True):
        instances.check_distinct_untrusted(digests, ctx, count)
        instances.check_openings_untrusted(digests, chosen, opening.lock, opening.seeds, ctx, threshold)


def unlock(escrow: Escrow, threshold: int) -> None:
    """The payee: the preimages from the first t attestations."""
    for level, (opening, ctx) in enumerate(zip(escrow.openings, escrow.contexts, strict=True), start=1):
        used = sorted(escrow.scalars)[:threshold]
        shares = {index: lock.open_share(opening.lock, ctx, index, escrow.scalars[index][:level]) for index in used}
        escrow.preimages.append(lock.combine(opening.lock, shares, threshold).hex())


async def everyone(escrows: Sequence[Escrow], act: Callable[[Escrow], Awaitable[None]]) -> None:
    """All at the same time."""
    async with trio.open_nursery() as nursery:
        for escrow in escrows:
            nursery.start_soon(act, escrow)


async def invoice(escrow: Escrow) -> None:
    """The payee's hold invoices, one after the other as its node gives them."""
    for opening in escrow.openings:
        escrow.bolt11.append(await escrow.lightning.hold_invoice(opening.lock.payment_hash, LEVEL_MSAT, CLTV, 3600))


async def accepted(escrow: Escrow) -> None:
    """Until the payee sees all its levels held."""
    seen = set()
    async with escrow.lightning.holds() as updates:
        async for update in updates:
            if update.state is HoldState.ACCEPTED:
                seen.add(update.payment_hash)
            if len(seen) == len(escrow.openings):
                return


async def settle(escrow: Escrow) -> None:
    """All levels at the same time."""
    async with trio.open_nursery() as nursery:
        for preimage in escrow.preimages:
            nursery.start_soon(escrow.lightning.settle, preimage)


async def run_stages(
    stages: Stages, network: Network, hub: ClnLightning, escrows: list[Escrow], oracles: list[Oracle], options: argparse.Namespace
) -> None:
    """A round of escrows, stage by stage."""
    threshold, count, total = options.threshold, options.instances, len(escrows) * options.levels
    results: list[PayResult] = []

    async def pay(bolt11: str, payment_hash: Digest) -> None:
        results.append(await hub.pay(bolt11, payment_hash, LEVEL_MSAT))

    outcome_point.cache_clear()
    with stages.stage("draw"):
        for escrow in escrows:
            draw(escrow, threshold, count)
    with stages.stage("open"):
        for escrow in escrows:
            choose_and_open(escrow, threshold, count)
    outcome_point.cache_clear()  # a payee has not computed the oracles' points yet: it is another process than the payer
    with stages.stage("check"):
        for escrow in escrows:
            check(escrow, threshold, count)
    with stages.stage("invoice"):
        await everyone(escrows, invoice)
    async with trio.open_nursery() as payments:
        with stages.stage("lock"):
            for escrow in escrows:
                for bolt11, opening in zip(escrow.bolt11, escrow.openings, strict=True):
                    payments.start_soon(pay, bolt11, opening.lock.payment_hash)
            while await network.locked() < total:  # noqa: ASYNC110 - there is no event for it
                await trio.sleep(WATCH_S)
        with stages.stage("seen"):
            await everyone(escrows, accepted)
        with stages.stage("attest"):
            for number, escrow in enumerate(escrows):
                escrow.scalars = {oracle.index: oracle.attest(number) for oracle in oracles}
        with stages.stage("unlock"):
            for escrow in escrows:
                unlock(escrow, threshold)
        with stages.stage("settle"):
            await everyone(escrows, settle)
            payments.cancel_scope.deadline = trio.current_time() + START_S
            while len(results) < total:  # noqa: ASYNC110 - until every payer has its preimage
                await trio.sleep(WATCH_S)
    assert {result.preimage for result in results} == {preimage for escrow in escrows for preimage in escrow.preimages}


async def bench(network: Network, options: argparse.Namespace) -> None:
    """Set up, run, check that everybody has been paid, print."""
    names = worker_names(options)
    node = {name: ClnLightning(network.socket(name), hold_poll_s=options.poll) for name in (HUB, *names)}
    oracles = [Oracle(index, secrets.token_bytes(32)) for index in range(1, options.oracles + 1)]
    escrows = [make_escrow(number, name, node[name], oracles, options) for number, name in enumerate(names)]
    before = await network.balances()
    stages = Stages(network)
    await run_stages(stages, network, node[HUB], escrows, oracles, options)
    after = await network.balances()
    assert after.total_msat == before.total_msat
    for name in names:
        gained = after.nodes[name].balance_msat - before.nodes[name].balance_msat
        assert gained == options.levels * LEVEL_MSAT, f"{name} has gained {gained}"
    show(stages, options)


def worker_names(options: argparse.Namespace) -> list[str]:
    """The payees."""
    return [f"worker-{number}" for number in range(1, options.workers + 1)]


def make_escrow(number: int, name: str, lightning: ClnLightning, oracles: list[Oracle], options: argparse.Namespace) -> Escrow:
    """The terms of one escrow."""
    announced = tuple(oracle.announce(number, options.levels) for oracle in oracles)
    contexts = [
        lock.LockContext(
            network="regtest",
            run="a" * 64,
            announcement_id=EventId("b" * 64),
            payer=Pubkey("c" * 64),
            payee=Pubkey(sha256(name.encode()).hexdigest()),
            level=level,
            oracles=announced,
            amount_msat=LEVEL_MSAT,
        )
        for level in range(1, options.levels + 1)
    ]
    return Escrow(name, lightning, contexts, [secrets.token_bytes(32) for _ in contexts])


WHAT = {
    "draw": "payer: instances of every level",
    "open": "payer: answers the choice",
    "check": "payee: cut-and-choose",
    "invoice": "payee: hold invoices",
    "lock": "payer: HTLCs sent and held",
    "seen": "payee: sees them held",
    "attest": "oracles: signatures",
    "unlock": "payee: preimages from t attestations",
    "settle": "payee settles, payer has preimages",
}
CRYPTO = ("draw", "open", "check", "attest", "unlock")
PAYER, PAYEE = ("draw", "open"), ("check", "unlock")
TO_LOCK, TO_SETTLE = ("open", "check", "invoice", "lock", "seen"), ("attest", "unlock", "settle")


def show(stages: Stages, options: argparse.Namespace) -> None:
    """Where the time went."""
    escrows, htlcs = options.workers, options.workers * options.levels
    print(
        f"{escrows} workers × {options.levels} levels = {htlcs} HTLCs; {options.threshold} of {options.oracles} oracles; {options.instances} instances"
    )
    print(f"{'stage':<44}{'wall':>9}{'own CPU':>10}{'nodes CPU':>12}")
    for name, (wall, own, theirs) in stages.rows.items():
        print(f"{name:<8}{WHAT[name]:<36}{wall:>7.2f} s{own:>8.2f} s{theirs:>10.2f} s")
    locked, settled = stages.sum(TO_LOCK)[0], stages.sum(TO_SETTLE)[0]
    print(f"offered → locked {locked:.2f} s → settled {settled:.2f} s more")
    lock_s, settle_s = stages.rows["lock"][0], stages.rows["settle"][0]
    print(f"the nodes alone: {htlcs / lock_s:,.0f} HTLCs/s locked, {htlcs / settle_s:,.0f} HTLCs/s settled")
    _, own, theirs = stages.sum(tuple(stages.rows))
    crypto = stages.sum(CRYPTO)[1]
    print(f"CPU of one escrow ({options.levels} levels), both sides, oracles and nodes: {(own + theirs) / escrows * 1e3:.1f} ms, of which")
    for label, seconds in (
        ("cryptography of the payer", stages.sum(PAYER)[1]),
        ("cryptography of the payee", stages.sum(PAYEE)[1]),
        ("oracles' signatures", stages.rows["attest"][1]),
        ("our JSON-RPC clients", own - crypto),
        ("the nodes", theirs),
    ):
        print(f"  {label:<28}{seconds / escrows * 1e3:>8.1f} ms  {seconds / (own + theirs):>5.0%}")
    print(f"cryptography is {crypto / own:.0%} of our own CPU, {crypto / (own + theirs):.0%} with the nodes'")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lightning", choices=["simnet", "regtest"], default="simnet", help="what to pay over")
    parser.add_argument("--workers", type=int, default=70)
    parser.add_argument("--levels", type=int, default=4)
    parser.add_argument("--oracles", type=int, default=3)
    parser.add_argument("--threshold", type=int, default=2)
    parser.add_argument("--instances", type=int, default=instances.INSTANCES)
    parser.add_argument("--poll", type=float, default=0.5, help="seconds between a payee's looks at its hold invoices (lightning.poll_s)")
    options = parser.parse_args()
    print("The bench drives the escrows itself: an announcement lists at most 20 workers in this version.")
    with tempfile.TemporaryDirectory() as name, running(Path(name), options.lightning, worker_names(options)) as network:
        trio.run(bench, network, options)


if __name__ == "__main__":
    main()
