"""`nostrain-ctl audit`."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from nostrain.audit.dispute import find_dispute
from nostrain.audit.proof import encode_proof, find_proofs, parse_proof_untrusted
from nostrain.ctl.audit import audit
from nostrain.ctl.main import main
from nostrain.protocol.messages import Dispute
from nostrain.wire.event import encode_event
from tests.docs.examples import COORDINATOR, START, VALIDATORS, WORKERS

from .fraud_world import PUBLIC, ROUND, flipped, made, only

EVENTS = (*PUBLIC, *made(only(1, flipped(1))))
LINES = [encode_event(event) for event in EVENTS]


def audited(tmp_path: Path, lines: list[bytes], out: Path | None = None) -> tuple[int, str, str]:
    """(how many proofs, standard output, standard error)."""
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"\n".join(lines))
    stdout, stderr = io.StringIO(), io.StringIO()
    with redirect_stdout(stdout), redirect_stderr(stderr):
        count = audit(path, out)
    return count, stdout.getvalue(), stderr.getvalue()


def test_an_honest_file(tmp_path: Path) -> None:
    count, stdout, stderr = audited(tmp_path, [encode_event(event) for event in PUBLIC])
    assert (count, stdout) == (0, "")
    assert stderr == f"{len(PUBLIC)} events, 0 claimed proofs, 0 lines refused: 0 proofs\n"


def test_what_is_found_is_printed_and_written_for_strangers(tmp_path: Path) -> None:
    out = tmp_path / "proofs.jsonl"
    count, stdout, _ = audited(tmp_path, [*LINES, b"", b"  "], out)
    assert count == 1
    assert stdout.startswith(f"false_offer: {COORDINATOR.pubkey} made a false offer")
    assert [parse_proof_untrusted(line) for line in out.read_bytes().splitlines()] == find_proofs(EVENTS)
    again, same, stderr = audited(tmp_path, out.read_bytes().splitlines())
    assert (again, same) == (1, stdout)
    assert stderr.startswith("0 events, 1 claimed proofs")


def test_a_claim_that_repeats_what_was_found_is_told_once(tmp_path: Path) -> None:
    count, stdout, _ = audited(tmp_path, [*LINES, encode_proof(find_proofs(EVENTS)[0])])
    assert (count, stdout.count("\n")) == (1, 1)


def test_refused_lines_are_named_and_the_rest_is_read(tmp_path: Path) -> None:
    false_claim = encode_proof(find_proofs(EVENTS)[0]).replace(b'"kind":"false_offer"', b'"kind":"equivocation"')
    count, _, stderr = audited(
        tmp_path, [b"junk", b"[]", b"\xff\xfe", *LINES, LINES[0].replace(b"8650", b"8651"), false_claim, b"[" * 9999]
    )
    assert count == 1
    lines = stderr.splitlines()
    assert [line.partition(":")[0] for line in lines[:-1]] == [
        f"line {number}" for number in (1, 2, 3, len(LINES) + 4, len(LINES) + 5, len(LINES) + 6)
    ]
    assert "do not show any equivocation" in lines[-3]
    assert lines[-1].endswith("6 lines refused: 1 proofs")


def test_the_command_exits_with_3_when_something_is_proved_and_with_1_when_it_cannot_read(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    for lines, code in ((LINES, 3), (LINES[:5], 0)):
        file.write_bytes(b"\n".join(lines))
        assert CliRunner().invoke(main, ["audit", str(file)]).exit_code == code
    assert CliRunner().invoke(main, ["audit", str(tmp_path / "none")]).exit_code == 1


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(click.ClickException, match="No such file"):
        audit(tmp_path / "none")
    (tmp_path / "long").write_bytes(b"x" * (1 << 21))
    with pytest.raises(click.ClickException, match="line 1 has more than"):
        audit(tmp_path / "long")
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(click.ClickException, match="directory"):
        audit(tmp_path / "empty", tmp_path)


def test_disputes_are_judged_by_the_events_beside_them(tmp_path: Path) -> None:
    dispute = find_dispute(ROUND.run, EVENTS, (COORDINATOR.pubkey,))
    assert dispute is not None
    slander = Dispute(ROUND.run, "equivocation", COORDINATOR.pubkey, (ROUND.events["receipt"].id,))
    said = [WORKERS[0].says(body, START + 200) for body in (dispute[0], slander)]
    lines = [encode_event(event) for event in (*EVENTS, *said, ROUND.claims["dispute"])]
    count, stdout, stderr = audited(tmp_path, lines)
    assert count == 1
    told = {line.split()[1]: line.partition("): ")[2] for line in stdout.splitlines() if line.startswith("dispute ")}
    assert told[said[0].id].startswith("proven: false_offer: ")
    assert told[said[1].id].startswith("false: proof: its 1 events do not show any equivocation")
    assert told[ROUND.claims["dispute"].id] == "open: 1 of 2 events that it names are not there"
    assert stderr.endswith("1 proofs, 3 disputes\n")


def test_the_report_for_programs(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"\n".join(encode_event(event) for event in (*PUBLIC, ROUND.contradiction, ROUND.claims["dispute"])))
    ran = CliRunner().invoke(main, ["audit", str(path), "--json"])
    assert ran.exit_code == 3
    found = json.loads(ran.stdout)
    assert found["events"] == len(PUBLIC) + 2
    (proof,), (dispute,) = found["proofs"], found["disputes"]
    assert (proof["kind"], proof["accused"]) == ("equivocation", VALIDATORS[2].pubkey)
    assert sorted(proof["evidence"]) == dispute["evidence"]
    assert (dispute["verdict"], dispute["author"], dispute["missing"]) == ("proven", WORKERS[0].pubkey, [])


def test_there_must_be_something_to_read() -> None:
    for incomplete in ([], ["--relay", "ws://127.0.0.1:1"], ["--run", "1" * 64], [__file__, "--run", "1" * 64]):
        assert CliRunner().invoke(main, ["audit", *incomplete]).exit_code == 2
    ran = CliRunner().invoke(main, ["audit", "--relay", "ws://127.0.0.1:1", "--run", "mine"])
    assert ran.exit_code == 1
    assert "64 hex digits" in ran.output
    assert "not a relay address" in CliRunner().invoke(main, ["audit", "--relay", "http://x", "--run", "1" * 64]).output
