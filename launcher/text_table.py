"""A table before it is drawn, and the terminal's and Markdown's ways to draw it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

GOOD = ("pass", "verified", "done", "shown")
BAD = ("FAIL", "violated", "failed", "lost")


@dataclass(frozen=True, kw_only=True)
class TextTable:
    """The first column names the row, the others are figures."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def frame(title: str) -> Table:
    """An empty table in the house's look."""
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        header_style="dim",
        box=None,
        padding=(0, 2, 0, 0),
        pad_edge=False,
    )


def draw(table: TextTable, num_folding: int = 0, *, last_folds: bool = False) -> Table:
    """For a terminal; the first `num_folding` columns, and the last where it is said, are texts
    that may take several lines."""
    drawn = frame(table.title)
    for index, name in enumerate(table.header):
        if index < num_folding:
            drawn.add_column(name, overflow="fold")
        elif last_folds and index == len(table.header) - 1:
            drawn.add_column(name, justify="right", overflow="fold")
        else:
            drawn.add_column(name, justify="left" if index == 0 else "right", no_wrap=True)
    for row in table.rows:
        drawn.add_row(*(Text(cell, style=style_of(cell)) for cell in row))
    return drawn


def style_of(cell: str) -> str:
    return "bold red" if cell in BAD else "green" if cell in GOOD else ""


def markdown_rows(table: TextTable) -> Iterator[str]:
    yield f"| {' | '.join(table.header)} |"
    yield f"|---|{'---:|' * (len(table.header) - 1)}"
    for row in table.rows:
        yield f"| {' | '.join(row)} |"
