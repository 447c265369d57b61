"""The prose against the repository: settings, links, the README's tree, the decisions' index, the glossary of kinds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from nostrain.config.keys import KEYS, SETTINGS, is_table
from nostrain.config.schema import DaemonConfig

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"```.*?```", re.DOTALL)


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def anchors(page: Path) -> set[str]:
    """What a link may name in `page`: its headings, as forges spell them."""
    headings = re.findall(r"^#+ (.*)$", CODE.sub("", page.read_text()), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", LINK.sub(lambda found: found[0][1:].partition("]")[0], heading).lower()) for heading in headings)
    return {heading.strip().replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target in LINK.findall(CODE.sub("", page.read_text())):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        if not there.exists() or (anchor and anchor not in anchors(there)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_pages_name_no_place_of_the_machine_they_were_written_on(page: Path) -> None:
    assert not re.search(r"/(?:work|home|root|tmp)/", page.read_text())


def default(key: str) -> str:
    """The default of a setting as the table shows it."""
    table: type[msgspec.Struct] = DaemonConfig
    *path, last = key.split(".")
    for at in range(len(path)):
        table = KEYS[".".join(path[: at + 1])]
    value: Any = next(field for field in msgspec.structs.fields(table) if field.name == last).default
    if value is msgspec.NODEFAULT:
        return "required"
    if isinstance(value, tuple):
        return "`[]`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`" if isinstance(value, int) else f'`"{value or ""}"`' if value is not None else "none"


def test_every_setting_is_documented_with_its_default() -> None:
    text = (ROOT / "docs" / "operating.md").read_text().partition("\n## Configuration\n")[2].partition("\n## ")[0]
    told = dict(re.findall(r"^\| `([a-z_.]+)` \| ([^|]+?) \|", text, re.MULTILINE))
    assert told == {key: default(key) for key in SETTINGS}
    assert not any(is_table(key) for key in told)


def test_the_index_lists_every_decision() -> None:
    folder = ROOT / "docs" / "adr"
    index = (folder / "README.md").read_text()
    pages = sorted(folder.glob("[0-9]*.md"))
    assert len(pages) >= 16
    for page in pages:
        number, _, title = page.read_text().splitlines()[0].removeprefix("# ").partition(". ")
        assert page.name.startswith(number)
        assert f"| [{number}]({page.name}) | {title} |" in index


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "adr").glob("[0-9]*.md")), ids=name)
def test_a_decision_says_what_would_overturn_it(page: Path) -> None:
    parts = re.findall(r"^\*\*([A-Z][a-z ]+)\.\*\* \S", page.read_text(), re.MULTILINE)
    assert parts == ["Context", "Decision", "Consequences", "What would overturn it"]


def test_the_tree_of_the_readme_is_that_of_the_repository() -> None:
    text = (ROOT / "README.md").read_text()
    tree = re.search(r"```\nnostrain/\n(.*?)```", text, re.DOTALL)
    assert tree is not None
    told = set(re.findall(r"^├── ([a-z]+)/", tree[1], re.MULTILINE)) | set(re.findall(r"^└── ([a-z]+)/", tree[1], re.MULTILINE))
    packages = {path.parent.name for path in (ROOT / "nostrain").glob("*/__init__.py")}
    assert told == packages
