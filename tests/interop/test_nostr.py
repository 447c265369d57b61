"""Our pool against other people's relays, and other people's clients reading what we publish, and writing what we read.

Relays: nostr-sdk's LocalRelay, nostr-relay from PyPI, @nostr-relay/core from npm (20 events an answer), strfry with our configuration and our
policy if it is on PATH, and whichever runs at NOSTRAIN_TEST_RELAY (ws://…). Clients: nostr-sdk, nostr-tools. `scripts/interop-tools` installs
what is not a dependency of ours into build/interop, or wherever NOSTRAIN_TEST_INTEROP says.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from nostrain.errors import RemoteProtocolError
from nostrain.nostr.pool import RelayPool, open_pool
from nostrain.protocol.event import Event, Filter
from nostrain.wire.event import encode_event, parse_event_untrusted
from tests.contracts.relay_process import Author, RelayProcess

HERE = Path(__file__).parent
TOOLS = Path(os.environ.get("NOSTRAIN_TEST_INTEROP") or HERE.parents[1] / "build" / "interop").absolute()
CONFIGS = HERE.parents[1] / "relay-configs"
PATIENCE_S = 60
STORED = 30
CONTENT = 'é "\\ \n 🦆'

NOSTR_RELAY = """
relay_name: interop
storage:
  sqlalchemy.url: sqlite+aiosqlite:///{folder}/events.sqlite
  num_concurrent_reqs: 10
  num_concurrent_adds: 2
  validators: [nostr_relay.validators.is_not_too_large, nostr_relay.validators.is_signed, nostr_relay.validators.is_recent]
verification: {{nip05_verification: disabled}}
gunicorn: {{bind: "127.0.0.1:{port}", workers: 1, loglevel: warning}}
subscription_limit: 32
max_event_size: 65536
max_limit: 20
"""


def needs(installed: bool, what: str) -> None:
    if not installed:
        pytest.skip(f"{what} is not in {TOOLS.name} (scripts/interop-tools puts it there): not tried with it")


def node(script: str) -> tuple[str, ...]:
    """The command that runs a script beside this file; npm's packages are found from TOOLS, where it runs."""
    needs(shutil.which("node") is not None and (TOOLS / "node_modules" / "nostr-tools").is_dir(), "nostr-tools")
    return ("node", "--input-type=module", "--eval", (HERE / script).read_text())


def free_port() -> int:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port: int = reserved.getsockname()[1]
        return port


def local_relay(folder: Path) -> Iterator[str]:
    relay = RelayProcess(folder)
    yield relay.url
    relay.stop()


def pypi_relay(folder: Path) -> Iterator[str]:
    program = TOOLS / "nostr-relay" / "bin" / "nostr-relay"
    needs(program.exists(), "nostr-relay")
    port = free_port()
    config = folder / "config.yaml"
    config.write_text(NOSTR_RELAY.format(folder=folder, port=port))
    environment = os.environ | {"HOME": str(folder)}  # its server keeps a control socket there
    with subprocess.Popen(
        [program, "-c", config, "serve"], env=environment, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        yield f"ws://127.0.0.1:{port}"  # the pool dials until it is there
        process.terminate()


def npm_relay(folder: Path) -> Iterator[str]:
    with subprocess.Popen(node("npm_relay.mjs"), cwd=TOOLS, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        yield process.stdout.readline().strip()
        process.stdin.close()


def strfry(folder: Path) -> Iterator[str]:
    """With relay-configs/strfry.conf; only where it lies, where it listens and where its plugin lies are ours."""
    if shutil.which("strfry") is None:
        pytest.skip("strfry is not on PATH: not tried with it")
    port = free_port()
    text = (CONFIGS / "strfry.conf").read_text()
    for theirs, ours in {
        "./strfry-db/": f"{folder}/",
        "port = 7777": f"port = {port}\n    nofiles = 0",  # its default of open files wants privileges
        "/etc/strfry/nostrain-policy.py": f"{sys.executable} {CONFIGS}/nostrain-policy.py",
    }.items():
        assert text.count(theirs) == 1
        text = text.replace(theirs, ours)
    config = folder / "strfry.conf"
    config.write_text(text)
    with subprocess.Popen(["strfry", f"--config={config}", "relay"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        yield f"ws://127.0.0.1:{port}"  # the pool dials until it is there
        process.terminate()


def named_relay(folder: Path) -> Iterator[str]:
    url = os.environ.get("NOSTRAIN_TEST_RELAY")
    if not url:
        pytest.skip("NOSTRAIN_TEST_RELAY names no relay that runs already: not tried with another")
    yield url


RELAYS = {"LocalRelay": local_relay, "nostr-relay": pypi_relay, "@nostr-relay": npm_relay, "strfry": strfry, "named": named_relay}


@pytest.fixture(params=list(RELAYS), scope="module")
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    yield from RELAYS[request.param](tmp_path_factory.mktemp("relay"))


@pytest.fixture
def author(request: pytest.FixtureRequest) -> Author:
    return Author(f"{request.node.nodeid} {time.time_ns()}")  # a relay that runs already remembers


async def take(relays: RelayPool, wanted: Filter, count: int) -> set[Event]:
    async with relays.subscribe([wanted]) as events:
        return {await events.receive() for _ in range(count)}


async def test_the_pool_reads_back_everything_past_the_cap_and_lives_on(url: str, author: Author) -> None:
    now = int(time.time())
    with trio.fail_after(PATIENCE_S):
        async with open_pool([url]) as alice, open_pool([url]) as bob:
            said = {author.note(f"{CONTENT} {i}", created_at=now - STORED + i, tags=(("t", "nostrain"),)) for i in range(STORED)}
            for event in said:
                await alice.publish(event)
                await alice.publish(event)
            async with bob.subscribe([Filter(authors=(author.pubkey,), tags=(("t", ("nostrain",)),))]) as events:
                assert {await events.receive() for _ in range(STORED)} == said
                live = author.note("live", created_at=now, tags=(("t", "nostrain"), ("x", "a" * 64)))
                await alice.publish(live)
                assert await events.receive() == live
            wrap = author.note("x" * 16_000, kind=1059, created_at=now, tags=(("p", author.pubkey),))
            await alice.publish(wrap)
            assert await take(bob, Filter(kinds=(1059,), tags=(("p", (author.pubkey,)),)), 1) == {wrap}
            assert not bob.counts["bad event"]


async def test_a_forged_event_is_refused_for_good(url: str, author: Author) -> None:
    genuine = author.note("x", created_at=int(time.time()))
    forged = Event(genuine.id, genuine.pubkey, genuine.created_at, genuine.kind, genuine.tags, genuine.content, "11" * 64)
    with trio.fail_after(PATIENCE_S):
        async with open_pool([url]) as pool:
            with pytest.raises(RemoteProtocolError):
                await pool.publish(forged)


async def run_client(command: tuple[str, ...], folder: Path) -> Any:
    done = await trio.run_process(command, cwd=folder, capture_stdout=True, capture_stderr=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


@pytest.fixture(params=["nostr-sdk", "nostr-tools"])
def client(request: pytest.FixtureRequest) -> tuple[str, tuple[str, ...], Path]:
    """A client's name, the command that runs it, and where."""
    if request.param == "nostr-sdk":
        return request.param, (sys.executable, str(HERE / "nostr_sdk_client.py")), HERE
    return request.param, node("nostr_tools_client.mjs"), TOOLS


async def test_clients_read_what_we_publish_and_we_read_them(url: str, client: tuple[str, tuple[str, ...], Path], author: Author) -> None:
    name, command, folder = client
    now = int(time.time())
    said = [author.note(f"{CONTENT} {i}", created_at=now - i, tags=(("t", "nostrain"), ("e", "b" * 64, "", "root"))) for i in range(5)]
    with trio.fail_after(PATIENCE_S):
        async with open_pool([url]) as pool:
            for event in said:
                await pool.publish(event)
            found = await run_client((*command, url, author.pubkey, str(len(said))), folder)
            assert sorted(found["read"], key=str) == sorted((json.loads(encode_event(event)) for event in said), key=str)
            assert found["verified"] == len(said)
            theirs = parse_event_untrusted(json.dumps(found["said"], ensure_ascii=False))
            assert await take(pool, Filter(ids=(theirs.id,)), 1) == {theirs}
            assert theirs.content == f"by {name}: {CONTENT}"
