"""`nostrain-ctl data`: datasets on disk. Tokenizing runs in a process of its own, which alone loads what that needs."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nostrain.ctl.beside import run_module
from nostrain.ctl.options import FOLDER, as_json, show_json

if TYPE_CHECKING:
    from nostrain.protocol.dataset import DatasetManifest
    from nostrain.protocol.event import Event
    from nostrain.protocol.manifest import BlobRef
    from nostrain.units import Digest

BYTES = "bytes"


@click.group()
def data() -> None:
    """Make, check and sign datasets."""


@data.command(short_help="Tokenize files into shards.")
@click.argument("inputs", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--out", required=True, type=FOLDER, help="Empty folder to make the dataset in.")
@click.option("--tokenizer", default=BYTES, show_default=True, metavar="FILE", help="A tokenizer.json (Hugging Face tokenizers), or bytes.")
@click.option("--separator", default=None, metavar="TOKEN", help="The token that ends a document.  [default: the tokenizer's end of text]")
@click.option("--field", default="text", show_default=True, help="Field of JSONL, or column of Parquet, that holds the text.")
@click.option("--shard-tokens", type=click.IntRange(1), default=1 << 20, show_default=True, help="Tokens of a shard, at least.")
@click.option("--validation-tokens", type=click.IntRange(1), default=1 << 18, show_default=True, help="Tokens held out.")
@click.option("--seed", type=click.IntRange(0, (1 << 63) - 1), default=0, show_default=True, help="Fixes the shuffle and what is held out.")
@click.option("--strict", is_flag=True, help="Stop at the first bad row instead of leaving it out.")
@as_json("what was built")
def build(
    inputs: tuple[Path, ...],
    out: Path,
    tokenizer: str,
    separator: str | None,
    field: str,
    shard_tokens: int,
    validation_tokens: int,
    seed: int,
    strict: bool,
    as_json: bool,
) -> None:
    """Tokenize INPUTS into shards: .jsonl, .parquet (with the extra `data`), anything else as text; .gz and .zst too; folders with all in them."""
    import msgspec

    from nostrain.protocol.dataset import BuildDataset

    spec = BuildDataset(
        inputs=tuple(map(str, inputs)),
        out=str(out),
        tokenizer=None if tokenizer == BYTES else tokenizer,
        separator=separator,
        field=field,
        shard_tokens=shard_tokens,
        validation_tokens=validation_tokens,
        seed=seed,
        strict=strict,
    )
    try:
        said = run_module("nostrain.learning.corpus", msgspec.json.encode(spec).decode())
    except KeyboardInterrupt:
        raise click.ClickException(f"interrupted; delete {out}") from None
    if as_json:
        click.echo(said, nl=False)
        return
    made = msgspec.json.decode(said)
    click.echo(f"{made['documents']:,} documents, {made['text_bytes']:,} bytes of text; {made['left_out']:,} bad rows left out")
    click.echo(
        f"{made['tokens']:,} tokens of {made['vocab_size']:,} in {made['dtype']}; {made['cut_off']:,} do not fill a shard and are cut off"
    )
    click.echo(f"{made['shards']:,} shards of {made['shard_tokens']:,} tokens, {made['validation_tokens']:,} held out")
    click.echo(f"dataset {made['dataset']['sha256']}")
    click.echo(
        f"in the configuration of a coordinator, under [coordinator.run]: dataset = {msgspec.json.encode(str(out.absolute())).decode()}"
    )


@data.command(short_help="Sign a dataset as its curator.")
@click.argument("folder", type=FOLDER)
@click.option("--key", required=True, type=FOLDER, help="Folder with root.key, as a daemon's data folder is; made if there is none.")
@click.option("--name", default="", help="What to call the dataset, for people.")
@as_json("the signed event")
def sign(folder: Path, key: Path, name: str, as_json: bool) -> None:
    """Sign a dataset as its curator: whoever trusts you joins runs on it. What you sign is the digest of its manifest."""
    import time

    from nostrain.errors import RemoteProtocolError
    from nostrain.wire.curation import CURATIONS_FILE, check_curation_untrusted
    from nostrain.wire.event import parse_event_untrusted
    from nostrain.wire.nip19 import npub

    _, digest = read(folder)
    signed = run_module("nostrain.keys.curate", str(key), digest, name, str(int(time.time())))
    try:
        event = check_curation_untrusted(parse_event_untrusted(signed), digest)
    except RemoteProtocolError as error:
        raise click.ClickException(f"--name: {error}") from error
    if event.pubkey not in {known.pubkey for known in curations(folder, digest)}:
        with (folder / CURATIONS_FILE).open("ab") as file:
            file.write(signed)
    click.echo(signed.strip() if as_json else f"dataset {digest} is signed by {npub(event.pubkey)}")


@data.command(short_help="Check a dataset's files and signatures.")
@click.argument("folder", type=FOLDER)
@click.option("--curator", default="", metavar="NPUB", help="Fail unless this key signed the dataset.")
@as_json("digest, sizes and signers")
def verify(folder: Path, curator: str, as_json: bool) -> None:
    """Check every file of a dataset against the digests in its manifest, and who signed it. Exit code 1 when something is wrong."""
    from nostrain.wire.nip19 import npub

    manifest, digest = read(folder)
    wrong = [line for line in (fault(folder / name, blob) for name, blob in files(manifest)) if line is not None]
    for line in wrong:
        click.echo(line, err=True)
    if wrong:
        raise click.ClickException(f"{folder}: not the dataset {digest}")
    signed = [npub(event.pubkey) for event in curations(folder, digest)]
    tokens, text = sum(shard.tokens for shard in manifest.shards), sum(shard.text_bytes for shard in manifest.shards)
    if as_json:
        show_json({"dataset": digest, "shards": len(manifest.shards), "tokens": tokens, "text_bytes": text, "signed_by": signed})
    else:
        click.echo(f"dataset {digest}: {len(manifest.shards)} shards, {tokens:,} tokens, {text:,} bytes of text")
        for who in signed:
            click.echo(f"signed by {who}")
    if curator and curator not in signed:
        raise click.ClickException(f"{folder}: not signed by {curator}")


def curations(folder: Path, digest: Digest) -> tuple[Event, ...]:
    """Who signed the dataset. Raises ClickException when the file of curations has anything else in it."""
    from nostrain.errors import RemoteProtocolError
    from nostrain.wire.curation import CURATIONS_FILE, read_curations_untrusted

    path = folder / CURATIONS_FILE
    try:
        return read_curations_untrusted(path.read_bytes(), digest) if path.exists() else ()
    except (OSError, RemoteProtocolError) as error:
        raise click.ClickException(f"{path}: {error}") from error


def read(folder: Path) -> tuple[DatasetManifest, Digest]:
    """The manifest in a dataset's folder, and its digest. Raises ClickException."""
    from nostrain.errors import RemoteProtocolError
    from nostrain.protocol.dataset import MANIFEST_FILE
    from nostrain.units import Digest
    from nostrain.wire.dataset import read_dataset_untrusted

    path = folder / MANIFEST_FILE
    try:
        content = path.read_bytes()
        return read_dataset_untrusted(content), Digest(hashlib.sha256(content).hexdigest())
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror}") from error
    except RemoteProtocolError as error:
        raise click.ClickException(f"{path}: {error}") from error


def files(manifest: DatasetManifest) -> list[tuple[str, BlobRef]]:
    """Name and blob of what the manifest lists."""
    from nostrain.protocol.dataset import files_of

    return files_of(manifest)


def fault(path: Path, blob: BlobRef) -> str | None:
    """What is wrong with a file, or None."""
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return f"{path.name}: {error.strerror}"
    return None if found == blob.sha256 else f"{path.name}: has the SHA-256 {found}, the manifest says {blob.sha256}"
