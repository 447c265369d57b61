"""What a run is made of, as a coordinator's configuration names it: whether it is there, and who signed the dataset."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

from nostrain.config.schema import RunConfig
from nostrain.errors import ConfigError, RemoteProtocolError
from nostrain.protocol.dataset import MANIFEST_FILE
from nostrain.protocol.event import Event
from nostrain.units import Digest
from nostrain.wire.curation import CURATIONS_FILE, MAX_CURATIONS, read_curations_untrusted

KEY: Final = "coordinator.run.dataset"


def sources(run: RunConfig) -> tuple[Event, ...]:
    """The curations of the run's dataset, if it has one. Raises ConfigError when a folder that the run is made of is not there, or none of its kind."""
    if run.text and not Path(run.text).is_dir():
        raise ConfigError("coordinator.run.text", run.text, "no such folder", "Name a folder of text, or leave it out")
    if run.init and not (Path(run.init) / "config.json").is_file():
        fix = "Name a folder with config.json and safetensors files, as Hugging Face has them"
        raise ConfigError("coordinator.run.init", run.init, "no config.json in it", fix)
    return curations_of(run) if run.dataset else ()


def curations_of(run: RunConfig) -> tuple[Event, ...]:
    """The curations that go into the manifest: of the curators that the configuration names, if it does.

    Raises ConfigError when the folder is no dataset, its curations cannot be read, or none of those curators signed it.
    """
    folder = Path(run.dataset)
    try:
        digest = Digest(hashlib.sha256((folder / MANIFEST_FILE).read_bytes()).hexdigest())
        path = folder / CURATIONS_FILE
        found = read_curations_untrusted(path.read_bytes(), digest) if path.exists() else ()
    except OSError as error:
        fix = "Name a folder that `nostrain-ctl data build` made"
        raise ConfigError(KEY, run.dataset, f"{MANIFEST_FILE} or {CURATIONS_FILE}: {error.strerror}", fix) from None
    except RemoteProtocolError as error:
        raise ConfigError(KEY, run.dataset, str(error), "Remove that line, or the file") from None
    if run.curators:
        found = tuple(event for event in found if event.pubkey in run.curators)
        if not found:
            reason = f"none of the curators signed the dataset {digest[:8]}"
            raise ConfigError("coordinator.run.curators", list(run.curators), reason, "Have one of them run `nostrain-ctl data sign`")
    return found[:MAX_CURATIONS]
