"""A whole `nostraind`, as its command line runs it."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner, Result

from nostrain.daemon.main import main
from nostrain.errors import EX_CONFIG

WORKER = 'roles = ["worker"]\nrelays = ["ws://127.0.0.1:9"]\n'


def configure(folder: Path, text: str = 'roles = ["blobs"]\n', data: Path | None = None) -> Path:
    path = folder / "nostraind.toml"
    path.write_text(f'name = "node"\ndata_dir = {json.dumps(str(data or folder / "data"))}\n{text}')
    return path


def start(path: Path, *options: str) -> Result:
    """Run the daemon in this process, for starts that fail."""
    return CliRunner().invoke(main, ["--config", str(path), *options])


def refused(result: Result, *words: str) -> None:
    """Exit code 78 and one line with `words`, nothing else."""
    assert result.exit_code == EX_CONFIG, result.output
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("nostraind: ")
    for word in words:
        assert word in lines[0]
