"""What the schema cannot say: URLs, addresses, contradictions between keys, secrets that do not belong here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from nostrain.config.blobs import BlobsConfig, PricesConfig
from nostrain.config.own_money import check_channels, check_lightning
from nostrain.config.runs import joined_run
from nostrain.config.schema import ANY, DaemonConfig, EngineConfig, RunConfig, SettlementConfig
from nostrain.errors import ConfigError
from nostrain.protocol.engines import DEVICES
from nostrain.protocol.limits import MAX_RELAYS
from nostrain.protocol.manifest import RULE_PARAMETERS, ScoringSpec
from nostrain.units import is_hex32

_SECRET_PREFIXES: Final = ("nsec1", "ncryptsec1", "xprv", "lntok")
LEVEL_VBYTES: Final = 400
"""What it takes to claim one HTLC on the chain, roughly: a level that pays less than that is not worth enforcing (design section 6)."""
MAX_FEE_PERCENT: Final = 5
"""The submission fee is at most so much of what a worker may expect (design section 12)."""


def check(config: DaemonConfig) -> None:
    """Raise ConfigError for the first thing in `config` that contradicts itself or cannot work."""
    _check_urls("relays", config.relays, ("ws", "wss"))
    _check_urls("blobs.servers", config.blobs.servers, ("http", "https"))
    _check_urls("blobs.url", (config.blobs.url,) if config.blobs.url else (), ("http", "https"))
    _check_bind(config.blobs.bind)
    _check_roles(config)
    _check_engine(config.engine)
    if config.join.coordinator is not None and not is_hex32(config.join.coordinator):
        raise ConfigError(
            "join.coordinator", config.join.coordinator, "not a public key", "Write it as npub1…, or as 64 lowercase hex digits"
        )
    joined_run(config)
    if config.blobs.max_bytes > config.blobs.quota:
        raise ConfigError(
            "blobs.max_bytes", config.blobs.max_bytes, f"above blobs.quota = {config.blobs.quota}", "Raise the quota or lower it"
        )
    _check_retention(config.blobs)
    if not config.lightning.given and (config.blobs.prices != PricesConfig() or config.blobs.pay_sat):
        reason = "prices or payments need a Lightning node"
        raise ConfigError("lightning.socket", "", reason, "Set it, or drop [blobs.prices] and blobs.pay_sat")
    check_lightning(config.lightning)
    if config.coordinator is not None:
        _check_relays(config.coordinator.run.relays)
        _check_run(config.coordinator.run)
        check_channels(config)


def refuse_secrets(data: Mapping[str, Any], prefix: str = "") -> None:
    """Raise ConfigError if a value looks like a secret key. The value itself is not repeated."""
    for name, value in data.items():
        if isinstance(value, dict):
            refuse_secrets(value, f"{prefix}{name}.")
            continue
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, str) and item.lower().startswith(_SECRET_PREFIXES):
                fix = "Remove it, and consider the key known to others; the daemon keeps its keys in its data folder"
                raise ConfigError(prefix + name, f"{item[:5]}…", "a secret does not belong in the configuration", fix)


def _check_urls(key: str, urls: Iterable[str], schemes: tuple[str, ...]) -> None:
    seen = set()
    for url in urls:
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname, parts.port
        except ValueError as error:
            raise ConfigError(key, url, f"not a URL: {error}", f"Write {schemes[-1]}://host") from None
        if parts.username is not None or parts.password is not None:
            raise ConfigError(key, f"{parts.scheme}://…@{host}", "a URL with a user or password", "Remove everything up to the @")
        if parts.scheme not in schemes or not host or any(char.isspace() for char in url):
            raise ConfigError(key, url, f"not a {' or '.join(schemes)} URL", f"Write {schemes[-1]}://host")
        if parts.fragment or parts.query:
            raise ConfigError(key, url, "a URL with a query or fragment", "Remove what follows the path")
        if url.rstrip("/") in seen:
            raise ConfigError(key, url, "named twice", "Remove one of them")
        seen.add(url.rstrip("/"))


def _check_relays(relays: tuple[str, ...]) -> None:
    _check_urls("coordinator.run.relays", relays, ("ws", "wss"))
    if len(relays) > MAX_RELAYS:
        raise ConfigError("coordinator.run.relays", list(relays), f"{len(relays)} relays", f"Name {MAX_RELAYS} at most")


def _check_bind(bind: str) -> None:
    host, separator, port = bind.rpartition(":")
    if not separator or not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ConfigError("blobs.bind", bind, "not host:port", "Write for example 127.0.0.1:0, or [::1]:3000")


def _check_retention(blobs: BlobsConfig) -> None:
    rules = blobs.retention
    if rules.max_bytes and rules.max_bytes < blobs.max_bytes:
        reason = f"below blobs.max_bytes = {blobs.max_bytes}"
        raise ConfigError(
            "blobs.retention.max_bytes", rules.max_bytes, reason, "Raise it: one blob would not fit, or lower blobs.max_bytes"
        )
    if rules.keep and not (rules.idle_days or rules.max_bytes):
        reason = "nothing is removed that could be kept"
        raise ConfigError("blobs.retention.keep", list(rules.keep), reason, "Set idle_days or max_bytes, or drop it")


def _check_roles(config: DaemonConfig) -> None:
    roles, key = config.roles, "roles"
    shown = list(roles)
    if len(set(roles)) < len(roles):
        raise ConfigError(key, shown, "a role named twice", "Name each once")
    if "worker" in roles and "validator" in roles:
        raise ConfigError(key, shown, "a validator would score its own work", "Run the two roles as two daemons with a key each")
    if config.blobs.follow and "blobs" not in roles:
        raise ConfigError("blobs.follow", True, "only a blob server follows a run to serve it", 'Add "blobs" to roles, or drop it')
    if config.blobs.follow and config.join.coordinator is None:
        fix = "Name it: what it uploads before its run is published would be refused"
        raise ConfigError("join.coordinator", None, "a blob server follows the run of one coordinator", fix)
    if config.in_a_run and not config.relays:
        raise ConfigError("relays", [], "a run is followed on relays", "Name at least one, as wss://host")
    if "coordinator" in roles and config.coordinator is None:
        raise ConfigError(
            "coordinator.run", None, "a coordinator needs a run to coordinate", "Add the table [coordinator.run], or drop the role"
        )
    if "coordinator" not in roles and config.coordinator is not None:
        raise ConfigError(key, shown, "the file has [coordinator.run] but not that role", 'Add "coordinator" to roles, or drop the table')
    if "coordinator" in roles and "blobs" not in roles and not config.blobs.servers:
        raise ConfigError("blobs.servers", [], "a run needs somewhere to put its blobs", 'Name a server, or add "blobs" to roles')


def _check_engine(engine: EngineConfig) -> None:
    if engine.device not in DEVICES[engine.kind]:
        there = ", ".join(DEVICES[engine.kind])
        raise ConfigError("engine.device", engine.device, f"{engine.kind} has no such device", f"Write one of {there}")
    if engine.kind == "mlx":
        plain = EngineConfig()
        for name in ("precision", "compile"):
            if getattr(engine, name) != getattr(plain, name):
                raise ConfigError(f"engine.{name}", getattr(engine, name), "mlx has no such option", "Leave it out")


def _check_validators(run: RunConfig) -> None:
    key, named = "coordinator.run.validators", set(run.validators)
    if ANY in named:
        if named != {ANY}:
            raise ConfigError(key, list(run.validators), f"{ANY} beside keys", f"Name keys, or write {ANY} alone")
    elif not named and run.settlement.mode != "none":
        reason = "validators decide what this run pays, and none are named: whoever enrols could be one"
        raise ConfigError(
            key, [], reason, f'Name the public keys of at least {run.min_validators}; ["{ANY}"] where no stranger reaches the relays'
        )
    elif named and len(named) < run.min_validators:
        reason = f"{len(named)} named, {run.min_validators} have to enrol"
        raise ConfigError(key, list(run.validators), reason, "No round could ever begin; name more, or lower min_validators")


def _check_run(run: RunConfig) -> None:
    key = "coordinator.run"
    if run.threshold > run.min_validators:
        reason = f"more than min_validators = {run.min_validators}"
        raise ConfigError(f"{key}.threshold", run.threshold, reason, "No round could ever be attested; lower it")
    _check_validators(run)
    if run.text and run.dataset:
        raise ConfigError(f"{key}.dataset", run.dataset, "a run learns from one of text and dataset", "Drop one of them")
    if run.curators and not run.dataset:
        raise ConfigError(f"{key}.curators", list(run.curators), "only a built dataset can be signed", "Set dataset, or drop curators")
    least, most = RULE_PARAMETERS[run.outer.rule]
    if not least <= run.outer.parameter <= most:
        reason = f"the rule {run.outer.rule} takes {least} to {most}" if most else f"the rule {run.outer.rule} takes none"
        raise ConfigError(f"{key}.outer.parameter", run.outer.parameter, reason, "Change it, or the rule")
    settlement = run.settlement
    if settlement.mode == "none" and (settlement.pool_sat or settlement.slots or settlement.fee_sat):
        reason = "amounts are given, but the run is not paid"
        raise ConfigError(f"{key}.settlement.mode", settlement.mode, reason, 'Write mode = "hold", or drop the amounts')
    if settlement.mode == "hold":
        _check_schedule(f"{key}.settlement", settlement, run.min_workers)


def _check_schedule(key: str, settlement: SettlementConfig, min_workers: int) -> None:
    """A schedule that pays what a chain can carry, for a fee that is worth it."""
    levels = len(ScoringSpec().levels_ppm)
    if settlement.pool_sat == 0:
        raise ConfigError(f"{key}.pool_sat", 0, "settlement by hold invoices of nothing", "Say what a round pays in all, or mode none")
    if settlement.slots == 0:
        raise ConfigError(f"{key}.slots", 0, "a pool for nobody", "Say to how many workers a round pays it at most")
    if settlement.slots < min_workers:
        reason = f"min_workers = {min_workers} are waited for, and more than slots are never listed"
        raise ConfigError(f"{key}.slots", settlement.slots, reason, "Raise slots, or lower min_workers")
    level = settlement.pool_sat // (settlement.slots * levels)
    least = max(1, -(-LEVEL_VBYTES * settlement.feerate_perkb // 1000))
    if level < least:
        reason = f"a level pays {level} sat (pool_sat / slots / {levels}), and taking it to the chain costs {least}"
        fix = f"Raise pool_sat to {least * settlement.slots * levels}, or lower slots or feerate_perkb"
        raise ConfigError(f"{key}.pool_sat", settlement.pool_sat, reason, fix)
    most = level * levels * MAX_FEE_PERCENT // 100 // settlement.epoch_rounds
    if settlement.fee_sat > most:
        reason = f"more than {MAX_FEE_PERCENT} % of the {level * levels} sat that a worker earns at best in {settlement.epoch_rounds} rounds of fees"
        raise ConfigError(f"{key}.fee_sat", settlement.fee_sat, reason, f"Ask for {most} at most, or raise pool_sat")
