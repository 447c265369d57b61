"""What the commands of `nostrain-ctl` have in common: options of one name and meaning, and JSON for programs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

CONTROL: Final = click.option(
    "--control",
    "control",
    type=click.Path(path_type=Path),
    envvar="NOSTRAIN_CONTROL",
    show_envvar=True,
    default=Path("control.sock"),
    show_default=True,
    help="Control socket of the daemon: control.sock in its data folder.",
)
FOLDER: Final = click.Path(path_type=Path, file_okay=False)


def relays(question: str) -> Callable[[Any], Any]:
    """`--relay`, as often as one likes: what is asked of them."""
    return click.option("--relay", "relays", multiple=True, metavar="URL", help=f"{question}; may be given more than once.")


def as_json(answer: str) -> Callable[[Any], Any]:
    """`--json`: `answer` is what is printed then."""
    return click.option("--json", "as_json", is_flag=True, help=f"Print {answer} as JSON; amounts are in msat.")


def show_json(value: object) -> None:
    """One JSON value, on one line."""
    import msgspec

    click.echo(msgspec.json.encode(value))
