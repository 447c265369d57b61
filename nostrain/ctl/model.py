"""`nostrain-ctl model`: a run's model as a folder of Hugging Face's. The tensors are read in a process of its own, which alone loads numpy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from nostrain.ctl.beside import run_module
from nostrain.ctl.options import CONTROL, FOLDER, as_json, relays, show_json

if TYPE_CHECKING:
    from nostrain.protocol.event import Event
    from nostrain.protocol.export import Exported, ExportModel, RunModel, Vocabulary
    from nostrain.units import Digest

ANSWER_S: Final = 40.0
"""The daemon may have to fetch the tokenizer first."""
FILE: Final = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.group()
def model() -> None:
    """Take a run's model out."""


@model.command(short_help="Write a folder that `from_pretrained` opens.")
@click.argument("folder", type=click.Path(path_type=Path))
@CONTROL
@click.option("--data-dir", type=FOLDER, default=None, help="Read this data folder of a stopped daemon instead.")
@click.option(
    "--checkpoint", type=FILE, default=None, help="Take this file instead, as a blob server has it; needs --events, or --run and --relay."
)
@click.option("--events", type=FILE, default=None, help="With --checkpoint: the run's manifest and results, a JSON event a line.")
@click.option("--run", default="", metavar="RUN", help="With --checkpoint: the run, an id, nevent or naddr.")
@relays("With --checkpoint: read the run from this relay")
@click.option(
    "--dataset", type=FOLDER, default=None, help="The run's dataset, to take the tokenizer from, where the daemon cannot have it."
)
@click.option(
    "--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), default="float32", show_default=True, help="Type of the weights."
)
@click.option("--shard-mb", type=click.IntRange(1, 10**9), default=5_000, show_default=True, help="Largest file, in 10⁶ bytes.")
@as_json("what was written")
@click.pass_context
def export(
    context: click.Context,
    folder: Path,
    control: Path,
    data_dir: Path | None,
    checkpoint: Path | None,
    events: Path | None,
    run: str,
    relays: tuple[str, ...],
    dataset: Path | None,
    dtype: str,
    shard_mb: int,
    as_json: bool,
) -> None:
    """Write the model of a run into FOLDER, as Hugging Face has them: config.json, safetensors, tokenizer, a card.

    Of the daemon that answers on the control socket: its newest state, which it computed itself, or joined at. FOLDER must not be there yet; it appears when it is
    whole, and only if the checkpoint's Merkle root is that of the run's state.
    """
    import msgspec
    from click.core import ParameterSource

    from nostrain.protocol.export import ExportModel

    daemon_named = context.get_parameter_source("control") is ParameterSource.COMMANDLINE
    if sum((daemon_named, data_dir is not None, checkpoint is not None)) > 1:
        raise click.UsageError("one source: --control, --data-dir or --checkpoint")
    if (checkpoint is not None) != (events is not None or bool(relays)) or (run and checkpoint is None) or (relays and not run):
        raise click.UsageError("--checkpoint needs the run that it is of, and nothing else does: --events, or --run with --relay")
    if checkpoint is not None:
        source = _of_file(checkpoint, events, run, relays)
    else:
        source = _of_folder(data_dir) if data_dir is not None else _of_daemon(control)
    if dataset is not None:
        source = msgspec.structs.replace(source, vocabulary=_vocabulary(dataset, source.dataset))
    made = _export(ExportModel(source, str(folder.absolute()), dtype, shard_mb * 1_000_000))  # type: ignore[arg-type]
    if as_json:
        show_json(made)
        return
    state = made.state
    size = sum(made.files.values())
    click.echo(f"{made.folder}: {made.parameters:,} parameters in {made.dtype}, {size:,} bytes in {len(made.files)} files")
    click.echo(f"round {state.round} of {source.rounds} of run {source.run}, state {state.state_id}, Merkle root {state.root}")
    lacks = source.vocabulary is None or (source.vocabulary.tokenizer is not None and not made.tokenizer)
    if lacks:
        click.echo("without a tokenizer, which is not at hand: --dataset FOLDER, of `data build`, adds it", err=True)


def _of_daemon(control: Path) -> RunModel:
    """What the running daemon holds."""
    from nostrain.ctl.client import call
    from nostrain.wire.control import Request

    found = call(control, Request("model"), ANSWER_S).model
    if found is None:
        raise click.ClickException("the daemon did not say which model it has")
    return found


def _of_folder(folder: Path) -> RunModel:
    """What the journal of a stopped daemon names; read by a process that may know what is in it."""
    import msgspec

    from nostrain.protocol.export import RunModel

    return msgspec.json.decode(run_module("nostrain.daemon.held_model", str(folder.absolute())), type=RunModel)


def _of_file(checkpoint: Path, events: Path | None, run: str, relays: Sequence[str]) -> RunModel:
    """The file, and every state that the run's coordinator has signed; which of them it is, is found when it is read."""
    from nostrain.ctl.audit import fetch_events, read_events

    found = fetch_events(relays, run) if relays else []
    if events is not None:
        listed, _, refused = read_events(events)
        for number, reason in refused:
            click.echo(f"{events}: line {number}: {reason}", err=True)
        found += listed
    return _signed(found, run, checkpoint)


def _signed(events: Sequence[Event], run: str, checkpoint: Path) -> RunModel:
    """The run that `events` are of, with the manifest's state and those of all results. Raises ClickException."""
    from nostrain.errors import RemoteProtocolError
    from nostrain.protocol.digests import initial_state_id
    from nostrain.protocol.export import ModelState, RunModel
    from nostrain.protocol.manifest import RunManifest
    from nostrain.protocol.messages import Message, Result
    from nostrain.wire.messages import read_message_untrusted
    from nostrain.wire.nip19_run import parse_run_untrusted

    messages: list[Message] = []
    for event in events:
        try:
            messages.append(read_message_untrusted(event))
        except RemoteProtocolError:
            continue
    try:
        wanted = parse_run_untrusted(run).run if run else None
    except RemoteProtocolError as error:
        raise click.ClickException(f"--run: {error}") from None
    manifests = {one.id: one for one in messages if isinstance(one.body, RunManifest) and wanted in (None, one.id)}
    if len(manifests) != 1:
        hint = "name one with --run" if manifests else "a checkpoint is only exported with the manifest of its run"
        raise click.ClickException(f"{len(manifests)} run manifests found: {hint}")
    (manifest,) = manifests.values()
    body = manifest.body
    assert isinstance(body, RunManifest)
    states = [ModelState(0, initial_state_id(body.root), body.root)]
    for one in messages:
        if isinstance(one.body, Result) and one.body.run == manifest.id and one.author == manifest.author:
            states.append(ModelState(one.body.round, one.body.state_id, one.body.root))
    return RunModel.of(manifest.id, manifest.author, body, tuple(states), str(checkpoint.absolute()))


def _vocabulary(folder: Path, wanted: Digest) -> Vocabulary:
    """What the manifest of a built dataset says of tokens. Raises ClickException when it is not the run's."""
    from nostrain.ctl.data import read
    from nostrain.protocol.dataset import TOKENIZER_FILE
    from nostrain.protocol.export import Vocabulary

    manifest, digest = read(folder)
    if digest != wanted:
        raise click.ClickException(f"--dataset {folder}: it is the dataset {digest}, the run's is {wanted}")
    path = None if manifest.tokenizer is None else str((folder / TOKENIZER_FILE).absolute())
    return Vocabulary(manifest.separator, manifest.tokenizer, path)


def _export(job: ExportModel) -> Exported:
    """Have the folder made."""
    import msgspec

    from nostrain.protocol.export import Exported

    try:
        made = run_module("nostrain.learning.export", msgspec.json.encode(job).decode())
    except KeyboardInterrupt:
        raise click.ClickException("interrupted; nothing is left of the folder") from None
    return msgspec.json.decode(made, type=Exported)
