"""The plugin as lightningd runs it, on pyln-client: `nostrain-hold`, and `nostrain-hold-standby` beside it.

lightningd calls `htlc_accepted` plugin by plugin. While a call has no reply the HTLC is held; if the plugin dies, the call goes on to the next one in
the chain (`lightningd/plugin_hook.c`), which is how the standby comes to hold what the first one held, and the other way round once the first one,
started again, has joined the end of the chain. Calls may come before `init` has been answered: they wait.
"""

from __future__ import annotations

import inspect
import os
import secrets
import sqlite3
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

from pyln.client import LightningRpc, Plugin, RpcError, RpcException

from nostrain.errors import LocalProtocolError, RemoteProtocolError
from nostrain.holdplugin import hook
from nostrain.holdplugin.invoices import Refused, Settings
from nostrain.holdplugin.keeper import Keeper
from nostrain.holdplugin.methods import MAX_BLOCKS, Json, Methods, number
from nostrain.holdplugin.partner import Partner, Presence
from nostrain.holdplugin.store import Store
from nostrain.units import BlockHeight, Digest

FIRST: Final = "nostrain-hold"
STANDBY: Final = "nostrain-hold-standby"
FOLDER: Final = "nostrain-hold"
EXPIRY_DEADLINE: Final = "hold-expiry-deadline"
MPP_TIMEOUT: Final = "hold-mpp-timeout"
TICK_S: Final = 1.0
LOOK_S: Final = 0.05
"""Between looks at what the other process has changed: a read of one row."""
FAILED: Final = -32700
"""The code of every error of BoltzExchange/hold's methods."""
METHODS: Final = ("holdinvoice", "injectholdinvoice", "listholdinvoices", "settleholdinvoice", "cancelholdinvoice", "cleanholdinvoices")


class Lightningd:
    """`methods.Rpc`, on a connection per call."""

    def __init__(self, socket: str) -> None:
        self._socket = socket

    def call(self, method: str, params: Json) -> Json:
        """As the protocol."""
        try:
            result: Json = LightningRpc(self._socket).call(method, params)
        except RpcError as error:
            message = error.error.get("message", error) if isinstance(error.error, dict) else error
            raise Refused(f"{method}: {message}") from error
        except ValueError as error:
            raise OSError(f"{method}: lightningd hung up") from error
        return result

    def height(self) -> BlockHeight:
        """The newest block that lightningd knows. Raises OSError."""
        try:
            return BlockHeight(int(self.call("getinfo", {})["blockheight"]))
        except Refused as error:
            raise OSError(str(error)) from error

    def live_htlcs(self) -> frozenset[tuple[Digest, int]]:
        """See `keeper.LiveHtlcs`."""
        try:
            channels = self.call("listpeerchannels", {})["channels"]
            htlcs = [htlc for channel in channels for htlc in channel.get("htlcs", ())]
            return frozenset((Digest(htlc["payment_hash"]), int(htlc["id"])) for htlc in htlcs if htlc["direction"] == "in")
        except Refused as error:
            raise OSError(str(error)) from error
        except (KeyError, TypeError, ValueError) as error:
            raise RemoteProtocolError("listpeerchannels", repr(error)) from error


class HoldPlugin:
    """One of the two processes. `first`: the one with the methods."""

    def __init__(self, *, first: bool) -> None:
        self._name, self._other = (FIRST, STANDBY) if first else (STANDBY, FIRST)
        self._first = first
        self._instance = secrets.token_hex(8)
        self._keeper: Keeper | None = None
        self._methods: Methods | None = None
        self._presence: Presence | None = None
        self._early: list[Any] = []
        self._plugin = Plugin(dynamic=True)
        self._plugin.add_hook("htlc_accepted", self._htlc_accepted, background=True, after=[] if first else [FIRST])
        self._plugin.add_subscription("block_added", self._block_added)
        self._plugin.add_subscription("shutdown", self._shutdown)
        self._plugin.child_init = self._init
        if first:
            # Only one plugin may have an option, or a method, of a name.
            text = "Blocks before its expiry at which a held HTLC is cancelled, and from which on none is settled"
            self._plugin.add_option(EXPIRY_DEADLINE, Settings.expiry_deadline, text, opt_type="int")
            self._plugin.add_option(MPP_TIMEOUT, Settings.mpp_timeout_s, "Seconds for all parts of a payment to come", opt_type="int")
            for name in METHODS:
                self._plugin.add_method(name, self._method(name))

    def run(self) -> None:
        """Serve lightningd until it closes our input."""
        self._plugin.run()

    def _log(self, level: str, line: str) -> None:
        self._plugin.log(line, level)

    def _init(self, options: Json, configuration: Json, **_: Any) -> Json | None:
        """lightningd is told why when this process cannot be of use; it then goes on without it."""
        folder = Path(configuration["lightning-dir"]) / FOLDER
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            self._presence = Presence(folder / f"{self._name}.lock", self._instance)
            self._presence.take()
            store = Store(folder / "hold.sqlite")
            if self._first:
                store.configure(settings_of(options))
        except (OSError, sqlite3.Error, LocalProtocolError, Refused) as error:
            return {"disable": f"{folder}: {error}"}
        rpc = Lightningd(str(Path(configuration["lightning-dir"]) / configuration["rpc-file"]))
        program = str(Path(sys.argv[0]).absolute().with_name(self._other))
        partner = Partner(folder / f"{self._other}.lock", partial(start_plugin, rpc, program), self._log, always=self._first)
        keeper = Keeper(store, self._instance, partner.alive, self._log)
        if self._first:
            self._methods = Methods(store, keeper, rpc, str(configuration["network"]))
        self._keeper = keeper
        for request in self._early:
            self._receive(keeper, request)
        self._early.clear()
        threading.Thread(target=self._follow, args=(keeper, rpc), name="keeper", daemon=True).start()
        partner.watch()
        return None

    def _htlc_accepted(self, request: Any, **_: Any) -> None:
        if self._keeper is None:
            self._early.append(request)
        else:
            self._receive(self._keeper, request)

    def _receive(self, keeper: Keeper, request: Any) -> None:
        """Raises nothing: pyln would fail the HTLC."""
        try:
            offer = hook.parse_offer_untrusted(request.params)
        except RemoteProtocolError as error:
            self._log("unusual", str(error))
            offer = None
        if offer is None:
            self._reply(request, hook.go_on())
        else:
            keeper.receive(offer, partial(self._reply, request))

    def _reply(self, request: Any, reply: hook.Reply) -> None:
        try:
            request.set_result(reply)
        except OSError:
            # lightningd is gone, and so are we; what was decided is on disk.
            os._exit(1)

    def _block_added(self, **params: Any) -> None:
        with suppress(sqlite3.Error):  # the next tick tries again
            if self._keeper is not None:
                self._keeper.block(hook.height_of_block_untrusted(params))

    def _shutdown(self, **_: Any) -> None:
        if self._presence is not None:
            self._presence.leave()
        os._exit(0)

    def _method(self, name: str) -> Callable[..., Json]:
        function = getattr(Methods, name)

        def call(*args: Any, **kwargs: Any) -> Json:
            if self._methods is None:
                raise RpcException(f"{FIRST} has not started yet: try again", FAILED)
            try:
                result: Json = function(self._methods, *args, **kwargs)
            except (Refused, OSError, sqlite3.Error) as error:
                raise RpcException(str(error), FAILED) from error
            return result

        # pyln reads the parameters' names off the function.
        signature = inspect.signature(function)
        call.__signature__ = signature.replace(parameters=list(signature.parameters.values())[1:])  # type: ignore[attr-defined]
        return call

    def _follow(self, keeper: Keeper, rpc: Lightningd) -> None:
        """A thread's life: what the other process has changed, many times a second; what time brings, once."""
        next_tick = 0.0
        while True:
            try:
                keeper.sweep()
                if time.monotonic() >= next_tick:
                    next_tick = time.monotonic() + TICK_S
                    if keeper.height == 0:
                        keeper.block(rpc.height())
                    keeper.tick(rpc.live_htlcs)
            except (OSError, sqlite3.Error) as error:
                self._log("debug", f"tried again in a second: {error}")
            except Exception:
                # This thread answers the HTLCs that are held: it goes on whatever happens.
                self._log("error", traceback.format_exc())
            time.sleep(LOOK_S)


def settings_of(options: Json) -> Settings:
    """The options' values. Raises Refused."""
    return Settings(
        expiry_deadline=number(options.get(EXPIRY_DEADLINE, Settings.expiry_deadline), EXPIRY_DEADLINE, 1, MAX_BLOCKS),
        mpp_timeout_s=number(options.get(MPP_TIMEOUT, Settings.mpp_timeout_s), MPP_TIMEOUT, 1, 3_600),
    )


def start_plugin(rpc: Lightningd, program: str) -> None:
    """Have lightningd start the other process. Raises OSError."""
    try:
        rpc.call("plugin", {"subcommand": "start", "plugin": program})
    except Refused as error:
        raise OSError(str(error)) from error


def main() -> None:
    """`nostrain-hold`."""
    HoldPlugin(first=True).run()


def standby() -> None:
    """`nostrain-hold-standby`."""
    HoldPlugin(first=False).run()
