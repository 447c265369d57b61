"""A lightningd made of a script: it starts the plugin's processes, talks to them over their pipes and answers on its socket what it was told to.

Of lightningd's own behaviour it has what the plugin relies on: a hook call goes to one process, and when that dies the test gives it to the next one;
`plugin start` starts a process.
"""

from __future__ import annotations

import itertools
import json
import os
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from nostrain.errors import RemoteProtocolError
from nostrain.holdplugin.plugin import FIRST, STANDBY
from nostrain.wire.bolt11 import parse_unsigned_untrusted
from tests.holdplugin.hold_examples import HEIGHT

ROOT = Path(__file__).parents[2]
NODE_ID = "02" + "33" * 32
WAIT_S = 30.0


class Process:
    """One process of the plugin."""

    def __init__(self, program: Path, environment: dict[str, str]) -> None:
        self._child = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        self._numbers = itertools.count(1)
        self._replies: dict[str, dict[str, Any]] = {}
        self._changed = threading.Condition()
        self.ended = False
        threading.Thread(target=self._read, daemon=True).start()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._child.pid

    def send(self, method: str, params: dict[str, Any]) -> str:
        """A request, not waited for; its id."""
        number = f"{method}#{next(self._numbers)}"
        self._write({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        return number

    def notify(self, method: str, params: dict[str, Any]) -> None:
        """A notification."""
        self._write({"jsonrpc": "2.0", "method": method, "params": params})

    def reply(self, number: str) -> dict[str, Any]:
        """The reply to a request, waited for."""
        with self._changed:
            assert self._changed.wait_for(lambda: number in self._replies or self.ended, WAIT_S), f"no reply to {number}"
            return self._replies[number]

    def ask(self, method: str, **params: Any) -> Any:
        """The result of a request."""
        reply = self.reply(self.send(method, params))
        assert "error" not in reply, reply
        return reply["result"]

    def refuses(self, method: str, **params: Any) -> str:
        """The message of the error that a request ends with."""
        reply = self.reply(self.send(method, params))
        return str(reply["error"]["message"])

    def has_replied(self, number: str) -> bool:
        """Whether there is a reply, after everything that was sent before has been worked off."""
        self.reply(self.send("listholdinvoices", {}))
        with self._changed:
            return number in self._replies

    def wait(self) -> int:
        """Wait until it has ended."""
        status = self._child.wait(WAIT_S)
        if self._child.stdin is not None:
            with suppress(BrokenPipeError):
                self._child.stdin.close()
        return status

    def end(self) -> None:
        """End it as lightningd does when it goes: by closing its input."""
        if self._child.stdin is not None and not self._child.stdin.closed:
            with suppress(BrokenPipeError):
                self._child.stdin.close()
        self.wait()

    def kill(self) -> None:
        """kill -9."""
        self._child.kill()
        self.wait()

    def _write(self, message: dict[str, Any]) -> None:
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps(message).encode() + b"\n\n")
        self._child.stdin.flush()

    def _read(self) -> None:
        assert self._child.stdout is not None
        buffer = b""
        while chunk := os.read(self._child.stdout.fileno(), 65536):
            *whole, buffer = (buffer + chunk).split(b"\n\n")
            with self._changed:
                for message in map(json.loads, whole):
                    if "id" in message:
                        self._replies[message["id"]] = message
                self._changed.notify_all()
        with self._changed:
            self.ended = True
            self._changed.notify_all()
        self._child.stdout.close()


class Handler(socketserver.StreamRequestHandler):
    """One connection to the socket."""

    def handle(self) -> None:
        # A caller that is killed resets its connection.
        with suppress(ConnectionResetError, BrokenPipeError):
            self.answer()

    def answer(self) -> None:
        """Call after call."""
        buffer = b""
        while chunk := self.request.recv(65536):
            buffer += chunk
            try:
                request = json.loads(buffer)
            except ValueError:
                continue
            lightningd: Lightningd = self.server.lightningd  # type: ignore[attr-defined]
            try:
                answer: dict[str, Any] = {"result": lightningd.methods[request["method"]](request["params"])}
            except (KeyError, LookupError, RemoteProtocolError) as error:
                answer = {"error": {"code": -32602, "message": str(error)}}
            self.request.sendall(json.dumps({"jsonrpc": "2.0", "id": request["id"]} | answer).encode() + b"\n\n")
            buffer = b""


class Lightningd:
    """The script. `methods` may be changed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.programs = folder, folder / "bin"
        self.programs.mkdir()
        self.processes: dict[str, Process] = {}
        self.started: list[str] = []
        self.channels: list[dict[str, Any]] = []
        self.options: dict[str, Any] = {}
        self._lock = threading.Condition()
        self._starting, self._closing = 0, False
        self.methods: dict[str, Callable[[dict[str, Any]], Any]] = {
            "getinfo": lambda _: {"id": NODE_ID, "blockheight": HEIGHT},
            "signinvoice": lambda params: {"bolt11": params["invstring"]},
            "decode": lambda params: decoded(params["string"]),
            "listinvoices": lambda _: {"invoices": []},
            "listpeerchannels": lambda _: {"channels": self.channels},
            "plugin": self._plugin,
        }
        for name, function in ((FIRST, "main"), (STANDBY, "standby")):
            program = self.programs / name
            text = f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nfrom nostrain.holdplugin.plugin import {function}\n\n{function}()\n"
            program.write_text(f"#!{sys.executable}\n{text}")
            program.chmod(0o755)
        self._server = socketserver.ThreadingUnixStreamServer(str(folder / "rpc"), Handler)
        self._server.daemon_threads = True
        self._server.lightningd = self  # type: ignore[attr-defined]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """End everything, also a process that is being started: it writes into the folder."""
        with self._lock:
            self._closing = True
            assert self._lock.wait_for(lambda: self._starting == 0, WAIT_S)
            processes = list(self.processes.values())
        for process in processes:
            process.end()
        self._server.shutdown()
        self._server.server_close()

    def spawn(self, name: str) -> Process:
        """A process that has not heard anything yet."""
        return Process(self.programs / name, {**os.environ, "LIGHTNINGD_PLUGIN": "1", "LIGHTNINGD_VERSION": "v26.06.6"})

    def init(self, process: Process, name: str) -> dict[str, Any] | None:
        """getmanifest, and the reply to init."""
        process.ask("getmanifest", **{"allow-deprecated-apis": False})
        options = self.options if name == FIRST else {}
        result: dict[str, Any] | None = process.ask("init", options=options, configuration=self.configuration)
        return result

    @property
    def configuration(self) -> dict[str, Any]:
        """What init says."""
        return {"lightning-dir": str(self.folder), "rpc-file": "rpc", "startup": True, "network": "regtest"}

    def start(self, name: str) -> Process:
        """One that runs."""
        process = self.spawn(name)
        assert self.init(process, name) is None
        with self._lock:
            self.processes[name] = process
            self.started.append(name)
            self._lock.notify_all()
        return process

    def wait_for_start(self, name: str, times: int) -> Process:
        """Wait until the process was started so often."""
        with self._lock:
            assert self._lock.wait_for(lambda: self.started.count(name) >= times, WAIT_S)
            return self.processes[name]

    def _plugin(self, params: dict[str, Any]) -> dict[str, Any]:
        assert params["subcommand"] == "start"
        with self._lock:
            if self._closing:
                raise LookupError("lightningd is shutting down")
            self._starting += 1
        try:
            self.start(Path(params["plugin"]).name)
        finally:
            with self._lock:
                self._starting -= 1
                self._lock.notify_all()
        return {}


def decoded(text: str) -> dict[str, Any]:
    """As lightningd decodes an invoice of ours."""
    terms = parse_unsigned_untrusted(text)
    return {
        "type": "bolt11 invoice",
        "valid": True,
        "payee": NODE_ID,
        "payment_hash": terms.payment_hash,
        "payment_secret": terms.payment_secret,
        "amount_msat": terms.amount_msat,
        "created_at": terms.created_at,
        "expiry": terms.expiry_s,
        "min_final_cltv_expiry": terms.min_final_cltv,
    }
