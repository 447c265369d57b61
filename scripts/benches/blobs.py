"""Upload and download of a large blob on loopback: our client and server, each in a process of its own, beside nginx serving the same file to
the same client. MB/s, and the most memory that each side held.
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
NGINX = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr;
events {{}}
http {{ access_log off; sendfile on; client_body_temp_path {folder}/t; proxy_temp_path {folder}/t; fastcgi_temp_path {folder}/t;
uwsgi_temp_path {folder}/t; scgi_temp_path {folder}/t; server {{ listen 127.0.0.1:{port}; root {root}; }} }}
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
    """A client's process: uploads `source` to the server, or without one fetches from the URL `servers[0]/digest`. Prints seconds and MB."""
    store = BlobStore(folder, SystemClock())
    async with BlossomClient(store, servers if source else [], NostrSigner(RootSecret(bytes(31) + b"\x01")), SystemClock()) as client:
        begin = time.perf_counter()
        if source:
            await client.put(Path(source), digest)
        else:
            await client.get(digest, [f"{servers[0]}/{digest}"], size)
        print(time.perf_counter() - begin, held("self"))
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


def measured(what: str, size: int, server: subprocess.Popen[str], *words: str) -> None:
    """Run a client and print a line."""
    seconds, client = map(float, subprocess.run(ours(*words), capture_output=True, text=True, check=True).stdout.split())
    print(f"{what:<34} {size / MB / seconds:8.0f} MB/s   client {client:5.0f} MB   server {held(server.pid):5.0f} MB", flush=True)


def bench(size: int, nginx: str | None, port: int) -> None:
    """Print one line for each transfer."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        source = folder / "source"
        with source.open("wb") as file:
            for start in range(0, size, MB):
                file.write(os.urandom(min(MB, size - start)))
        with source.open("rb") as file:
            digest, told = hashlib.file_digest(file, "sha256").hexdigest(), str(size)
        source.chmod(0o444)
        with running(ours("serve", str(folder / "server"))) as server:
            assert server.stdout is not None
            url = server.stdout.readline().strip()
            measured("upload, ours", size, server, "transfer", str(folder / "a"), url, digest, told, str(source))
            measured("download, ours", size, server, "transfer", str(folder / "b"), url, digest, told)
        if nginx is None:
            print("download, nginx: not measured, nginx is not on PATH")
            return
        config = folder / "nginx.conf"
        (folder / "t").mkdir()
        config.write_text(NGINX.format(folder=folder, root=folder / "server" / digest[:2], port=port))
        folder.chmod(0o755)
        with running([nginx, "-c", str(config), "-p", str(folder)]) as server:
            until_it_listens(port)
            measured("download, ours from nginx", size, server, "transfer", str(folder / "c"), f"http://127.0.0.1:{port}", digest, told)


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
    parser.add_argument("--nginx", default=shutil.which("nginx"), help="the nginx to compare with")
    parser.add_argument("--port", type=int, default=18_080, help="where nginx listens")
    arguments = parser.parse_args()
    bench(arguments.mb * MB, arguments.nginx, arguments.port)


if __name__ == "__main__":
    main()
