"""The run that a worker or validator was told to join, as people hand runs on."""

from __future__ import annotations

from nostrain.config.schema import ANY, DaemonConfig
from nostrain.errors import ConfigError, RemoteProtocolError
from nostrain.protocol.discovery import RunAddress
from nostrain.units import EventId, Pubkey, is_hex32


def joined_run(config: DaemonConfig) -> RunAddress | None:
    """What `join.run` and `join.coordinator` name together; None: any run. An nevent or naddr also says whose run it is, and where it is found.

    Raises ConfigError: it is neither, or the two keys contradict each other.
    """
    text, coordinator = config.join.run, config.join.coordinator
    if text == ANY:
        return None
    address = RunAddress(EventId(text)) if is_hex32(text) else _parsed(text)
    if coordinator is not None and address.coordinator not in (None, coordinator):
        reason = f"join.run names a run of {address.coordinator}"
        raise ConfigError("join.coordinator", coordinator, reason, "Drop it, or copy the run's nevent again")
    return RunAddress(address.run, address.coordinator if coordinator is None else Pubkey(coordinator), address.relays)


def _parsed(text: str) -> RunAddress:
    from nostrain.wire.nip19_run import parse_run_untrusted  # bech32: only for who writes one

    try:
        return parse_run_untrusted(text)
    except RemoteProtocolError as error:
        fix = "Write any, 64 lowercase hex digits, or the nevent that `nostrain-ctl run show` prints"
        raise ConfigError("join.run", text[:80], error.reason, fix) from None
