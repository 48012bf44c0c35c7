"""`millrace load compare`: what became of the metrics, and what it is called."""

from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from millrace.cli.arrays import wrong
from millrace.cli.load.run import reported
from millrace.load.compare import Comparison, Row, compare
from millrace.load.result import read_result
from millrace.load.words import figure

REGRESSED = 4
COLOURS = {"better": "green", "worse": "bold red", "same": "", "too short to say": "dim"}


def run_compare(before: Path, after: Path, threshold: str) -> int:
    """The exit status."""
    return reported(_compare(before, after, threshold))


async def _compare(before: Path, after: Path, threshold: str) -> int:
    found = compare(read_result(before), read_result(after), threshold=share(threshold))
    console = Console(highlight=False)
    console.print(f"before: {found.before}\nafter:  {found.after}", markup=False)
    console.print(_table(found))
    for note in found.notes:
        console.print(note, style="dim", markup=False)
    return REGRESSED if found.regressed else 0


def share(text: str) -> float:
    """A share, or per cent. Raises InvalidRequest."""
    number = text.removesuffix("%")
    try:
        return float(number) / (100 if number != text else 1)
    except ValueError:
        raise wrong("--threshold", f"{text!r} is not a share, as 0.05 or 5%") from None


def _table(found: Comparison) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, caption=f"threshold {found.threshold:.2%}", caption_justify="left")
    table.add_column("")
    for title in ("before", "after", "ratio", "95 % interval"):
        table.add_column(title, justify="right")
    table.add_column("verdict")
    for row in found.rows:
        table.add_row(*_cells(row), Text(row.verdict, COLOURS[row.verdict]))
    return table


def _cells(row: Row) -> tuple[str, ...]:
    """Of the error share the difference, in percentage points, in place of the ratio."""
    if row.difference is not None:
        interval = "" if row.low is None or row.high is None else f"{row.low:+.2%} to {row.high:+.2%}"
        return row.metric, f"{row.before:.2%}", f"{row.after:.2%}", f"{row.difference:+.2%}", interval
    interval = "" if row.low is None or row.high is None else f"{row.low:.3f} to {row.high:.3f}"
    ratio = "" if row.ratio is None else f"{row.ratio:.3f}"
    name = f"{row.metric}, {row.unit}" if row.unit not in row.metric else row.metric
    return name, figure(row.before), figure(row.after), ratio, interval
