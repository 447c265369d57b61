"""Upload and download of a large blob on loopback: our client with our server, each in a process of its own, beside the same client with nginx (WebDAV
for the upload), round by round. MB/s, the most memory that each side held, and its CPU time. Our server hashes what it takes and has it on the disk
before it answers; nginx does neither.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

import trio

from nostrain.blobs.app import blossom_app
from nostrain.blobs.client import BlossomClient
from nostrain.blobs.policy import BlobLimits
from nostrain.blobs.store import BlobStore
from nostrain.daemon.clock import SystemClock
from nostrain.http.server import serve
from nostrain.keys.signer import NostrSigner
from nostrain.keys.store import RootSecret
from nostrain.units import Digest, Pubkey

MB = 10**6
MOST_MEMORY = 64
"""MB that neither side may hold."""
NGINX = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr crit;
events {{}}
http {{ access_log off; sendfile on; client_max_body_size 0; client_body_temp_path {folder}/t; proxy_temp_path {folder}/t;
fastcgi_temp_path {folder}/t; uwsgi_temp_path {folder}/t; scgi_temp_path {folder}/t;
server {{ listen 127.0.0.1:{port}; root {root}; dav_methods PUT; }} }}
"""


class Anyone:
    """Everybody may upload."""

    def allow(self, pubkey: Pubkey, digest: Digest, size: int) -> str | None:
        """As the port."""
        return None


async def serve_folder(folder: Path) -> None:
    """The server's process: prints its URL, and ends with its input."""
    store = BlobStore(folder, SystemClock())
    async with trio.open_nursery() as nursery:
        app = blossom_app(store, Anyone(), SystemClock(), limits=BlobLimits(max_blob=1 << 40, quota=1 << 50))
        print(await nursery.start(serve, app, "127.0.0.1:0"), flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)
        nursery.cancel_scope.cancel()
    store.close()


async def transfer(folder: Path, servers: list[str], digest: Digest, source: str, size: int) -> None:
    """A client's process: uploads `source` to the server, or without one fetches from the URL `servers[0]/digest`. Prints seconds, MB and seconds of CPU."""
    store = BlobStore(folder, SystemClock())
    async with BlossomClient(store, servers if source else [], NostrSigner(RootSecret(bytes(31) + b"\x01")), SystemClock()) as client:
        begin = time.perf_counter()
        if source:
            await client.put(Path(source), digest)
        else:
            await client.get(digest, [f"{servers[0]}/{digest}"], size)
        print(time.perf_counter() - begin, held("self"), time.process_time())
    store.close()


def ours(*words: str) -> list[str]:
    """The command of one of our processes."""
    return [sys.executable, __file__, *words]


@contextmanager
def running(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A process for the length of a measurement."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def held(process: int | str) -> float:
    """The most memory that a process has held, in MB."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / MB


def until_it_listens(port: int) -> None:
    """Return when somebody listens on the port; raises OSError after ten seconds."""
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


class Measured(NamedTuple):
    """A transfer: MB/s, and of client and server the most memory (MB) and the CPU time (seconds, the client's with its start)."""

    rate: float
    client_memory: float
    server_memory: float
    client_cpu: float
    server_cpu: float


def worked(process: int) -> float:
    """Seconds of CPU that a process has had."""
    user, system = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def measured(size: int, server: subprocess.Popen[str], *words: str) -> Measured:
    """Run a client."""
    before = worked(server.pid)
    ended = subprocess.run(ours(*words), capture_output=True, text=True, check=True)
    seconds, memory, cpu = map(float, ended.stdout.split())
    return Measured(size / MB / seconds, memory, held(server.pid), cpu, worked(server.pid) - before)


@contextmanager
def nginx_serving(nginx: str, folder: Path, root: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    """nginx with `root`, from which it serves and into which it takes what is put."""
    config = folder / "nginx.conf"
    (folder / "t").mkdir(exist_ok=True)
    config.write_text(NGINX.format(folder=folder, root=root, port=port))
    folder.chmod(0o755)
    with running([nginx, "-c", str(config), "-p", str(folder)]) as server:
        until_it_listens(port)
        yield server


def one_round(folder: Path, source: Path, digest: str, size: int, nginx: str | None, port: int) -> Iterator[tuple[str, Measured]]:
    """Each transfer once, on servers that have nothing yet."""
    told, up, down = str(size), "upload", "download"
    with running(ours("serve", str(folder / "server"))) as server:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        yield f"{up} to ours", measured(size, server, "transfer", str(folder / "a"), url, digest, told, str(source))
        yield f"{down} from ours", measured(size, server, "transfer", str(folder / "b"), url, digest, told)
    if nginx is None:
        return
    url = f"http://127.0.0.1:{port}"
    (folder / "n").mkdir()
    with nginx_serving(nginx, folder, folder / "n", port) as server:
        yield f"{up} to nginx (no fsync)", measured(size, server, "transfer", str(folder / "a"), url, digest, told, str(source))
    with (folder / "n" / "upload").open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == digest
    with nginx_serving(nginx, folder, folder / "server" / digest[:2], port) as server:
        yield f"{down} from nginx", measured(size, server, "transfer", str(folder / "c"), url, digest, told)


def bench(size: int, nginx: str | None, port: int, rounds: int) -> None:
    """Print the median of each transfer, and where it lay."""
    found: dict[str, list[Measured]] = {}
    with tempfile.TemporaryDirectory() as made:
        source = Path(made) / "source"
        with source.open("wb") as file:
            for start in range(0, size, MB):
                file.write(os.urandom(min(MB, size - start)))
        with source.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        source.chmod(0o444)
        for number in range(rounds):
            folder = Path(made) / str(number)
            folder.mkdir()
            for what, result in one_round(folder, source, digest, size, nginx, port):
                found.setdefault(what, []).append(result)
            shutil.rmtree(folder)
    print(
        f"{size // MB} MB, {rounds} rounds, load {os.getloadavg()[0]:.0f}: median (least to most); most memory; CPU seconds of one transfer"
    )
    for what, results in found.items():
        rates = sorted(result.rate for result in results)
        client, server = (max(result[place] for result in results) for place in (1, 2))
        cpu = [median(result[place] for result in results) for place in (3, 4)]
        print(
            f"{what:<25} {median(rates):5.0f} MB/s ({rates[0]:.0f} to {rates[-1]:.0f})   client {client:3.0f} MB, {cpu[0]:.2f} s"
            f"   server {server:3.0f} MB, {cpu[1]:.2f} s"
        )
    if nginx is None:
        print("nginx: not measured, it is not on PATH")
    else:
        for ours_, theirs in (("upload to ours", "upload to nginx (no fsync)"), ("download from ours", "download from nginx")):
            ratios = [one.rate / other.rate for one, other in zip(found[ours_], found[theirs], strict=True)]
            print(f"{ours_} / {theirs}: {median(ratios):.2f}, round by round")
    most = max(max(result.client_memory, result.server_memory) for results in found.values() for result in results)
    print(f"most memory of one process: {most:.0f} MB, {'below' if most < MOST_MEMORY else 'NOT BELOW'} {MOST_MEMORY} MB")


def main() -> None:
    """Without words: the benchmark; otherwise one of its processes."""
    if sys.argv[1:2] == ["serve"]:
        trio.run(serve_folder, Path(sys.argv[2]))
        return
    if sys.argv[1:2] == ["transfer"]:
        folder, url, digest, size, *source = sys.argv[2:]
        trio.run(transfer, Path(folder), [url], Digest(digest), "".join(source), int(size))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mb", type=int, default=500, help="size of the blob in 10⁶ bytes")
    parser.add_argument(
        "--nginx", default=shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin"), help="the nginx to compare with"
    )
    parser.add_argument("--port", type=int, default=18_080, help="where nginx listens")
    parser.add_argument("--rounds", type=int, default=5, help="how often, one after the other on new servers")
    arguments = parser.parse_args()
    bench(arguments.mb * MB, arguments.nginx or None, arguments.port, arguments.rounds)


if __name__ == "__main__":
    main()
