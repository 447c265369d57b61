"""`nostrain-ctl data`: build in a process of its own, verify offline, clear lines for what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from nostrain.ctl.main import main
from nostrain.wire.nip19 import npub


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["data", *arguments])


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": f"row {at} " + "word " * 30}) + "\n" for at in range(100)))
    return path


def test_build_then_verify(text: Path, tmp_path: Path) -> None:
    out = tmp_path / "dataset"
    result = run("build", str(text), "--out", str(out), "--shard-tokens", "4000", "--validation-tokens", "1000")
    assert result.exit_code == 0, result.output
    digest = next(line for line in result.output.splitlines() if line.startswith("dataset ")).split()[1]
    assert f'dataset = "{out}"' in result.output
    assert "100 documents" in result.output
    verified = run("verify", str(out))
    assert verified.exit_code == 0
    assert digest in verified.output
    as_json = run("build", str(text), "--out", str(tmp_path / "again"), "--shard-tokens", "4000", "--validation-tokens", "1000", "--json")
    assert json.loads(as_json.output)["dataset"]["sha256"] == digest


def test_a_poisoned_shard_is_named(text: Path, tmp_path: Path) -> None:
    out = tmp_path / "dataset"
    assert run("build", str(text), "--out", str(out), "--shard-tokens", "4000", "--validation-tokens", "1000").exit_code == 0
    shard = out / "shard-0001.bin"
    shard.chmod(0o600)
    content = bytearray(shard.read_bytes())
    content[7] ^= 1
    shard.write_bytes(content)
    (out / "validation.bin").unlink()
    result = run("verify", str(out))
    assert result.exit_code == 1
    assert "shard-0001.bin: has the SHA-256" in result.output
    assert "validation.bin: No such file" in result.output
    (out / "dataset.json").write_text('{"v":1}')
    assert "version 1, this program reads 2" in run("verify", str(out)).output


def test_what_cannot_be_built_ends_with_a_line_and_code_1(text: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    result = run("build", str(text), "--out", str(tmp_path / "out"))
    assert result.exit_code == 1
    assert "two shards 2097152" in capfd.readouterr().err


def test_a_curator_signs_and_anybody_verifies(text: Path, tmp_path: Path) -> None:
    out, key = tmp_path / "dataset", tmp_path / "curator"
    assert run("build", str(text), "--out", str(out), "--shard-tokens", "4000", "--validation-tokens", "1000").exit_code == 0
    signed = run("sign", str(out), "--key", str(key), "--name", "test rows")
    assert signed.exit_code == 0, signed.output
    who = signed.output.split()[-1]
    assert who.startswith("npub1")
    assert run("sign", str(out), "--key", str(key)).exit_code == 0
    assert len((out / "curations.jsonl").read_text().splitlines()) == 1, "one word of each"
    assert run("verify", str(out), "--curator", who).exit_code == 0
    event = json.loads(run("sign", str(out), "--key", str(key), "--json").output)
    assert npub(event["pubkey"]) == who
    checked = json.loads(run("verify", str(out), "--json").output)
    assert (checked["signed_by"], checked["shards"]) == ([who], len(list(out.glob("shard-*.bin"))))
    stranger = run("verify", str(out), "--curator", "npub1" + "q" * 58)
    assert stranger.exit_code == 1
    assert "not signed by" in stranger.output
    (out / "curations.jsonl").write_text((out / "curations.jsonl").read_text().replace("test rows", "best rows"))
    assert "curations.jsonl, line 1" in run("verify", str(out)).output
    key.joinpath("root.key").chmod(0o644)
    assert run("sign", str(out), "--key", str(key)).exit_code == 1
