"""Words, blobs and jobs: what every role asks for, and how that ends."""

from __future__ import annotations

import msgspec

from nostrain.core.effects.base import EffectBase
from nostrain.protocol.dataset import DatasetManifest
from nostrain.protocol.event import Event
from nostrain.protocol.jobs import Job, JobResult
from nostrain.protocol.manifest import BlobRef
from nostrain.protocol.messages import Body, Message
from nostrain.units import Digest, EventId, Pubkey, UnixTime


class Sign(EffectBase, frozen=True, tag="sign"):
    """Encode and sign a body. Deterministic; nothing leaves the process."""

    body: Body
    created_at: UnixTime


class Send(EffectBase, frozen=True, tag="send"):
    """Publish the signed event, or mail it when it has a recipient."""

    event: Event
    recipient: Pubkey | None


class Draw(EffectBase, frozen=True, tag="draw"):
    """`size` bytes of entropy, committed before they are used."""

    size: int


class Fetch(EffectBase, frozen=True, tag="fetch"):
    """Bring a blob to this machine. With `must`, wrong bytes are only one source's fault: other sources are asked until one is right. With `spare` there
    is another way to what it brings: it fails when nobody has served it in a few attempts."""

    blob: BlobRef
    whose: str = ""
    must: bool = False
    author: Pubkey | None = None
    """Who published it: its list of servers is asked for when the blob's own URLs fail."""
    spare: bool = False


class FetchDataset(EffectBase, frozen=True, tag="fetch_dataset"):
    """Bring and read a dataset manifest."""

    blob: BlobRef
    author: Pubkey | None = None


class Upload(EffectBase, frozen=True, tag="upload"):
    """Store a local file on `servers`, the run's, and on our own. `ticket`: the round whose ticket authorizes it at the server that sold it."""

    blob: BlobRef
    path: str
    servers: tuple[str, ...]
    ticket: EventId | None = None


class Discard(EffectBase, frozen=True, tag="discard"):
    """Remove what rounds up to `last` left behind: our claim and that of `owners` on `blobs`, and files of `folder` but for the names in `keep`."""

    blobs: tuple[Digest, ...]
    owners: tuple[Pubkey, ...]
    folder: str
    last: int
    keep: tuple[str, ...]


class Evict(EffectBase, frozen=True, tag="evict"):
    """Remove our own copy of a blob that is to be had elsewhere."""

    blob: Digest


class Compute(EffectBase, frozen=True, tag="compute"):
    """Run a job in the engine process."""

    job: Job


class Signed(msgspec.Struct, frozen=True, tag="signed"):
    """The final bytes, and the message as everybody else will read it."""

    event: Event
    message: Message


class Drawn(msgspec.Struct, frozen=True, tag="drawn"):
    """Entropy, hex."""

    data: str


class Fetched(msgspec.Struct, frozen=True, tag="fetched"):
    """The verified blob's local path."""

    path: str


class DatasetRead(msgspec.Struct, frozen=True, tag="dataset_read"):
    """The dataset manifest."""

    dataset: DatasetManifest


class Uploaded(msgspec.Struct, frozen=True, tag="uploaded"):
    """Where the blob is served."""

    urls: tuple[str, ...]


class Computed(msgspec.Struct, frozen=True, tag="computed"):
    """The job's result."""

    result: JobResult
