"""Reading the documentation: its pages, tables, blocks and marks."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOC = ROOT / "doc"
PAGES = sorted([ROOT / "README.md", *DOC.rglob("*.md")])

FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CELLS = re.compile(r"(?<!\\)\|")


def prose(page: Path) -> str:
    """A page without its code blocks."""
    return FENCE.sub("", page.read_text())


def table_rows(text: str) -> list[list[str]]:
    """Cells of all table rows, heads and rules left out; a row's code marks are taken off."""
    rows = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in CELLS.split(row)[1:-1]] for row in rows]
    return [
        [cell.strip("`").replace("\\|", "|") for cell in row]
        for row, following in zip(cells, [*cells[1:], []], strict=True)
        if not set(row[0]) <= set("- ") and not (following and set(following[0]) == {"-"})
    ]


def after(text: str, mark: str) -> str:
    """What follows `<!-- mark -->` up to the first empty line behind the table's or block's begin."""
    found = text.split(f"<!-- {mark} -->\n", 1)
    assert len(found) == 2, f"<!-- {mark} --> is missing"
    return found[1]


def first_table(text: str, mark: str) -> list[list[str]]:
    """Rows of the table behind a mark."""
    return table_rows(after(text, mark).split("\n\n", 1)[0])


def first_block(text: str, mark: str) -> str:
    """The code block behind a mark."""
    match = FENCE.match(after(text, mark))
    assert match is not None, f"no block follows {mark}"
    return match[2]
