"""Reading the configuration: command line > environment > file > defaults, and one clear ConfigError for whatever is wrong."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from nostrain.config.check import check, refuse_secrets
from nostrain.config.keys import KEYS, REPLACED, SETTINGS, choices, is_table, nearest, nearest_key, value_from_text
from nostrain.config.pubkeys import spell_in_hex
from nostrain.config.schema import DaemonConfig
from nostrain.errors import ConfigError

ENV_PREFIX: Final = "NOSTRAIN_"
MAX_FILE_BYTES: Final = 1 << 20

_RESERVED: Final = re.compile(r"NOSTRAIN_(TEST_.*|CONFIG|SOCKET)")
"""Variables of the project's other programs: not settings."""

_SECRET_NAME: Final = re.compile(r"secret|private|passw|token|macaroon|nsec|mnemonic|rune", re.IGNORECASE)
"""Unknown keys whose value is better not repeated."""


def load_config(path: Path, overrides: Sequence[str] = (), env: Mapping[str, str] | None = None) -> DaemonConfig:
    """The configuration in the TOML file `path`, changed by `env` and then by `overrides`.

    `overrides` are `key=value` with dotted keys, as given to `--set`. `env` is the environment: `NOSTRAIN_ENGINE__THREADS=2` sets
    `engine.threads` (two underscores for the dot); None reads no environment.

    Raises ConfigError, with the key, the value, what is wrong with it and what to do, for anything that cannot be used.
    """
    data = _read(path)
    refuse_secrets(data)
    _refuse_unknown(data)
    for key, text in _from_env(env or {}):
        _put(data, key, value_from_text(key, text))
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator:
            raise ConfigError("--set", override, "is not key=value", "Write for example: --set log_level=debug")
        key = key.strip()
        if key not in SETTINGS:
            raise _unknown(key, text, "--set")
        _put(data, key, value_from_text(key, text))
    refuse_secrets(data)
    spell_in_hex(data)
    config = _convert(data)
    check(config)
    return config


def _read(path: Path) -> dict[str, Any]:
    """The parsed file. A file cut short is either not TOML any more, or lacks a required key, which the schema then names."""
    where = str(path)
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError("config", where, "no such file", "Name an existing file: nostraind --config FILE") from None
    except OSError as error:
        raise ConfigError("config", where, f"cannot be read: {error.strerror}", "Check the path and its permissions") from None
    if len(raw) > MAX_FILE_BYTES:
        raise ConfigError("config", where, f"larger than {MAX_FILE_BYTES} bytes", "This is not a nostraind configuration") from None
    if not raw.strip():
        raise ConfigError("config", where, "the file is empty", "It needs at least name, data_dir and roles") from None
    try:
        return tomllib.loads(raw.decode())
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError("config", where, f"not UTF-8 text at line {line}", "Save the file as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        end = raw.count(b"\n") + 1
        reason = str(error).replace("at end of document", f"at its end, line {end}: cut short?")
        raise ConfigError("config", where, f"not TOML: {reason}", "Mend that line") from None


def _from_env(env: Mapping[str, str]) -> list[tuple[str, str]]:
    found = []
    for variable, text in sorted(env.items()):
        if not variable.startswith(ENV_PREFIX) or _RESERVED.fullmatch(variable):
            continue
        key = variable.removeprefix(ENV_PREFIX).lower().replace("__", ".")
        if key not in SETTINGS:
            raise _unknown(key, text, f"environment variable {variable}")
        found.append((key, text))
    return found


def _put(data: dict[str, Any], key: str, value: object) -> None:
    *tables, last = key.split(".")
    for name in tables:
        inner = data.setdefault(name, {})
        if not isinstance(inner, dict):
            return  # the schema refuses the table, with its name
        data = inner
    data[last] = value


def _refuse_unknown(data: Mapping[str, Any], prefix: str = "") -> None:
    for name, value in data.items():
        key = prefix + name
        if key not in KEYS:
            raise _unknown(key, value, "the file")
        if is_table(key) and isinstance(value, dict):
            _refuse_unknown(value, key + ".")


def _unknown(key: str, value: object, source: str) -> ConfigError:
    meant = nearest_key(key)
    fix = REPLACED.get(key) or (f"Did you mean {meant}?" if meant else "Remove it")
    return ConfigError(key, "…" if _SECRET_NAME.search(key) else _short(value), f"unknown key in {source}", fix)


def _short(value: object) -> object:
    """`value`, or its beginning if it would not fit on a line."""
    text = str(value)
    return value if len(text) <= 80 else text[:80] + "…"


def _convert(data: dict[str, Any]) -> DaemonConfig:
    try:
        return msgspec.convert(data, DaemonConfig)
    except msgspec.ValidationError as error:
        raise _explain(str(error), data) from None


def _explain(message: str, data: dict[str, Any]) -> ConfigError:
    """A ConfigError from msgspec's message, which ends in `` - at `$.path` `` unless the fault is in the whole."""
    reason, _, where = message.partition(" - at ")
    path = where.strip("`").removeprefix("$").removeprefix(".")
    key = re.sub(r"\[\d+\]", "", path)
    missing = re.fullmatch(r"Object missing required field `(\w+)`", reason)
    if missing:
        key = f"{key}.{missing[1]}" if key else missing[1]
        return ConfigError(key, None, "required, and missing", "Add it; if it was there, the file has been cut short")
    value = _short(_value_at(data, path))
    words = choices(key)
    if words:
        meant = nearest(str(value), words)
        hint = f"Did you mean {meant!r}? " if meant else ""
        return ConfigError(key, value, f"not one of {', '.join(words)}", f"{hint}Choose one of them")
    reason = reason.replace("`object`", "a table").replace("`array`", "a list").replace("`", "").replace(" | null", "")
    return ConfigError(path, value, reason[0].lower() + reason[1:], "Correct the value")


def _value_at(data: object, path: str) -> object:
    for step in re.findall(r"\w+", path):
        if isinstance(data, dict):
            data = data[step]
        elif isinstance(data, list):
            data = data[int(step)]
    return data
