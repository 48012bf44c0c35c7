"""Tables that fit: the least important columns go where the terminal is narrow, the last rows where it is low."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

Row = TypeVar("Row")
PADDING = 2
"""Between two columns: one is the column's, one the box's."""
LEAST = 20
"""Cells to which the first column may be cut before another column goes."""


@dataclass(frozen=True, slots=True)
class Column(Generic[Row]):
    title: str
    cell: Callable[[Row], Text]
    order: int = 0
    """The highest goes first; 0 stays."""
    justify: Literal["left", "right"] = "right"


def fitting(columns: Sequence[Column[Row]], rows: Sequence[Row], width: int) -> list[Column[Row]]:
    """Those columns that fit into so many cells, in their order."""
    widths = {column.title: _width(column, rows) for column in columns}
    widths[columns[0].title] = min(widths[columns[0].title], LEAST + PADDING)
    kept = list(columns)
    for column in sorted(columns, key=lambda column: -column.order):
        if not column.order or sum(widths[one.title] for one in kept) <= width:
            break
        kept.remove(column)
    return kept


def table(title: str, columns: Sequence[Column[Row]], rows: Sequence[Row], width: int, most_rows: int) -> Table:
    """Its title says how many rows there are."""
    shown = rows[:most_rows]
    many = f"{len(shown)} of {len(rows)}" if len(shown) < len(rows) else f"{len(rows)}"
    named = Text(f"{title} ({many})", style="bold blue")
    kept = fitting(columns, shown, width)
    drawn = Table(title=named, title_justify="left", box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for column in kept:
        drawn.add_column(column.title, justify=column.justify, no_wrap=True, header_style="dim")
    for row in shown:
        drawn.add_row(*(column.cell(row) for column in kept))
    return drawn


def shares(wanted: Sequence[int], available: int) -> list[int]:
    """Max-min fair: each gets what it wants, or as much as any other that gets less than it wants."""
    given = [0] * len(wanted)
    while available > 0 and (hungry := [index for index, want in enumerate(wanted) if given[index] < want]):
        for index in hungry[:available]:
            given[index] += 1
        available -= len(hungry[:available])
    return given


def _width(column: Column[Row], rows: Sequence[Row]) -> int:
    return max([len(column.title), *(column.cell(row).cell_len for row in rows)]) + PADDING
