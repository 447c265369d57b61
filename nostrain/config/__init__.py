"""The one TOML of a daemon: schema, precedence, messages (design section 10, ConfigError)."""

from nostrain.config.blobs import BlobsConfig
from nostrain.config.load import load_config
from nostrain.config.schema import (
    CoordinatorConfig,
    DaemonConfig,
    EngineConfig,
    JoinConfig,
    RunConfig,
    SettlementConfig,
    TimingConfig,
    ValidatorConfig,
    WorkerConfig,
)

__all__ = [
    "BlobsConfig",
    "CoordinatorConfig",
    "DaemonConfig",
    "EngineConfig",
    "JoinConfig",
    "RunConfig",
    "SettlementConfig",
    "TimingConfig",
    "ValidatorConfig",
    "WorkerConfig",
    "load_config",
]
