"""A stranger with nothing but a relay's address and a run's id: what is proved there, by `nostrain-ctl audit`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trio
from click.testing import CliRunner

from nostrain.audit.dispute import find_dispute
from nostrain.ctl.main import main
from nostrain.devnet import stranger
from nostrain.nostr.pool import open_pool
from nostrain.protocol.discovery import RunAddress
from nostrain.protocol.event import Event
from nostrain.wire.messages import read_message_untrusted
from nostrain.wire.nip19_run import nevent
from tests.audit.fraud_world import PUBLIC, ROUND, flipped, made, only
from tests.contracts.relay_process import RelayProcess
from tests.docs.examples import COORDINATOR, START, WORKERS


async def publish(url: str, events: tuple[Event, ...]) -> None:
    async with open_pool([url]) as pool:
        for event in events:
            await pool.publish(event)


def test_a_relay_shows_what_a_dispute_rests_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stranger, "QUIET_S", 0.5)
    fraud = made(only(1, flipped(1)))
    found = find_dispute(ROUND.run, (*PUBLIC, *fraud), (COORDINATOR.pubkey,))
    assert found is not None
    said = WORKERS[0].says(found[0], START + 200)
    relay = RelayProcess(tmp_path)
    try:
        # The victim publishes its private messages as they are: they are signed by whoever is accused.
        trio.run(publish, relay.url, (*PUBLIC, *fraud, said))
        ran = CliRunner().invoke(main, ["audit", "--relay", relay.url, "--run", nevent(RunAddress(ROUND.run)), "--json"])
        nothing = CliRunner().invoke(main, ["audit", "--relay", relay.url, "--run", read_message_untrusted(said).id])
    finally:
        assert relay.stop() == 0
    assert ran.exit_code == 3, ran.output
    report = json.loads(ran.stdout)
    assert [(one["dispute"], one["verdict"]) for one in report["disputes"]] == [(said.id, "proven")]
    assert [(one["kind"], one["accused"]) for one in report["proofs"]] == [("false_offer", COORDINATOR.pubkey)]
    assert nothing.exit_code == 0, "that is no run"
