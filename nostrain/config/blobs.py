"""[blobs] and its tables: the blob server of a daemon, what it asks for, how much it bears, and what it keeps."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from nostrain.config.bounds import MAX_SAT, Positive


class PriceConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a request costs: `sat`, and `sat_per_mb` for each 10⁶ bytes of its blob. Both 0: it is free."""

    sat: Annotated[int, Meta(ge=0, le=MAX_SAT)] = 0
    sat_per_mb: Annotated[int, Meta(ge=0, le=MAX_SAT)] = 0


class PricesConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[blobs.prices]: by route. What the run itself uploads is free or paid by its tickets; with a price, everybody else may upload as well."""

    upload: PriceConfig = PriceConfig()
    download: PriceConfig = PriceConfig()
    list_sat: Annotated[int, Meta(ge=0, le=MAX_SAT)] = 0


class RatesConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[blobs.rates]: requests a minute by one address, and with one token; `proxy` says that a reverse proxy of ours names the address."""

    address: Positive = 3000
    token: Positive = 600
    proxy: bool = False


class RetentionConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[blobs.retention]: what the server removes by itself, of what no run that it follows needs. 0: no such rule.

    A blob goes `idle_days` after it was last uploaded or downloaded. All blobs together have at most `max_bytes`: the longest unused make room,
    if they have been unused for `grace_hours`. What the public keys in `keep` have stored always stays.
    """

    idle_days: Annotated[int, Meta(ge=0, le=36_500)] = 0
    max_bytes: Annotated[int, Meta(ge=0, le=1 << 60)] = 0
    grace_hours: Annotated[int, Meta(ge=0, le=24 * 366)] = 24
    keep: tuple[Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")], ...] = ()


class BlobsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[blobs]: where blobs are served (role `blobs`; port 0 takes a free one) and where they are uploaded. Sizes in bytes.

    `url`: what the world calls our own server, if not by the address it is bound to.

    `pay_sat` is the most that is paid to another server for one download or upload. `keep_deltas`: whether the server keeps the deltas of old
    rounds, which everybody needs who repeats the run from its first checkpoint. `follow`: whether a server without another role follows the run of [join], so that it takes
    what its workers upload, and knows what is still needed.
    """

    bind: str = "127.0.0.1:0"
    url: str = ""
    servers: tuple[str, ...] = ()
    max_bytes: Positive = 1 << 30
    quota: Positive = 20 << 30
    keep_deltas: bool = True
    follow: bool = False
    pay_sat: Annotated[int, Meta(ge=0, le=MAX_SAT)] = 0
    prices: PricesConfig = PricesConfig()
    rates: RatesConfig = RatesConfig()
    retention: RetentionConfig = RetentionConfig()
