"""The overview, drawn."""

import time
from collections.abc import Callable, Sequence
from itertools import accumulate

from rich.box import ROUNDED
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from millrace.cli.top.cells import count, memory, number, percent, refusals, seconds, size, sparkline, state, words
from millrace.cli.top.columns import Column, shares, table
from millrace.cli.top.rows import FrontendRow, ModelRow, Overview, Totals, WorkerRow

MOST_SILENT = 3
"""Frontends whose silence has a line of its own."""
CARD_ROWS, TABLE_ROWS = 4, 3
"""Lines of the cards, and of a table without its rows."""
CARDS_FROM = 20
"""The lowest terminal that has them."""
MODELS: tuple[Column[ModelRow], ...] = (
    Column("model", lambda row: words(row.name, "bold"), justify="left"),
    Column("task", lambda row: words(row.task), 7, "left"),
    Column("versions", lambda row: words(", ".join(row.versions)), 6, "left"),
    Column("workers", lambda row: count(row.ready_workers) if row.ready_workers else Text("0", style="red"), 1),
    Column("waiting", lambda row: count(row.waiting_jobs, "yellow")),
    Column("running", lambda row: count(row.running_jobs)),
    Column("wait", lambda row: seconds(row.estimated_wait_s)),
    Column("jobs/s", lambda row: number(row.jobs_s)),
    Column("failed/s", lambda row: _alarming(row.failures_s), 4),
    Column("runs/s", lambda row: number(row.runs_s), 3),
    Column("batch", lambda row: number(row.batch_size), 2),
)
WORKERS: tuple[Column[WorkerRow], ...] = (
    Column("worker", lambda row: words(row.worker_id, "bold"), justify="left"),
    Column("device", lambda row: words(row.device), 3, "left"),
    Column("provider", lambda row: words(row.execution_provider.removesuffix("ExecutionProvider")), 6, "left"),
    Column("state", lambda row: state(row.state), justify="left"),
    Column("models", lambda row: words(", ".join(row.models)), 5, "left"),
    Column("running", lambda row: count(row.running_jobs)),
    Column("free", lambda row: count(row.free_slots), 2),
    Column("memory", lambda row: memory(row.memory_used_bytes, row.memory_total_bytes), 1, "left"),
)
FRONTENDS: tuple[Column[FrontendRow], ...] = (
    Column("frontend", lambda row: words(row.address, "bold red" if row.problem else "bold"), justify="left"),
    Column("state", lambda row: Text("unreachable", "red") if row.problem else Text("reached", "green"), 5, "left"),
    Column("streams", lambda row: count(row.streams)),
    Column("calls/s", lambda row: number(row.calls_s)),
    Column("results/s", lambda row: number(row.results_s), 1),
    Column("refused/s", lambda row: _alarming(None if row.refusals_s is None else sum(row.refusals_s.values())), 2),
    Column("log reads/s", lambda row: number(row.log_reads_s), 8),
    Column("first p50", lambda row: seconds(row.first_result_p50_s), 6),
    Column("first p99", lambda row: seconds(row.first_result_p99_s), 3),
    Column("CPU", lambda row: percent(row.cpu_share), 4),
    Column("memory", lambda row: size(row.memory_bytes), 7),
)
Value = Callable[[Totals], float | None]
CARDS: tuple[tuple[str, Value, Callable[[Totals], Text], str], ...] = (
    ("requests/s", lambda totals: totals.calls_s, lambda totals: number(totals.calls_s), "cyan"),
    ("results/s", lambda totals: totals.results_s, lambda totals: number(totals.results_s), "green"),
    ("waiting", lambda totals: totals.waiting_jobs, lambda totals: count(totals.waiting_jobs), "yellow"),
    ("streams", lambda totals: totals.streams, lambda totals: count(totals.streams), "magenta"),
)
"""Name, what the sparkline shows, what is written, and the sparkline's style; the last go first."""
CARD_CELLS = 18
GAP = 2


def live(shown: Overview, history: Sequence[Totals], width: int, height: int) -> RenderableType:
    """For a terminal of so many cells and lines. `history`: the totals of former ticks, and last those of this one."""
    above = [_head(shown, width, "q quits"), *_said(shown)]
    rows = height - len(above) - 3 * TABLE_ROWS
    if height >= CARDS_FROM:
        above.insert(1, _cards(history, width))
        rows -= CARD_ROWS
    wanted = [len(shown.models), len(shown.workers), len(shown.frontends)]
    return Group(*above, *_tables(shown, width, shares(wanted, max(rows, len(wanted)))))


def plain(shown: Overview, width: int) -> RenderableType:
    """All of it, however many lines that takes."""
    totals = Text("  ").join(Text(f"{title} ").append(written(shown.totals)) for title, _, written, _ in CARDS)
    tables = _tables(shown, width, [len(shown.models), len(shown.workers), len(shown.frontends)])
    return Group(_head(shown, width), totals, *_said(shown), *(part for table in tables for part in (Text(), table)))


def _head(shown: Overview, width: int, hint: str = "") -> Table:
    totals = shown.totals
    reached, frontends, workers = totals.frontends_reached, len(shown.frontends), len(shown.workers)
    parts = [
        Text("millrace", style="bold"),
        Text(f"{reached}/{frontends} frontends", style="" if reached == frontends else "red"),
        Text(f"{totals.workers_ready}/{workers} workers", style="" if totals.workers_ready == workers else "red"),
        Text(f"{totals.running_jobs:,} running"),
        number(totals.jobs_s).append(" jobs/s"),
    ]
    aside = Text(f"{time.strftime('%H:%M:%S')}  {hint}".rstrip(), style="dim")
    ends = list(accumulate(part.cell_len + GAP for part in (*parts, aside)))
    head = Table.grid(expand=bool(hint), padding=(0, GAP))
    head.add_column(no_wrap=True)
    head.add_column(no_wrap=True, justify="right")
    line = Text(" " * GAP).join(part for part, end in zip(parts, ends, strict=False) if end <= width)
    head.add_row(line, aside if ends[-1] - GAP <= width else None)
    return head


def _said(shown: Overview) -> list[RenderableType]:
    """What is not as it should be."""
    said: list[Text] = []
    if shown.totals.refusals_s:
        said.append(Text("refused/s  ", style="yellow").append(refusals(shown.totals.refusals_s)))
    if shown.fleet_problem:
        told = "unknown" if shown.fleet_age_s is None else f"as of {shown.fleet_age_s:.0f} s ago"
        said.append(words(f"models and workers are {told}: {shown.fleet_problem}", "red"))
    silent = [row for row in shown.frontends if row.problem]
    said += [words(f"{row.address} is unreachable: {row.problem}", "red") for row in silent[:MOST_SILENT]]
    for text in said:
        text.no_wrap, text.overflow = True, "ellipsis"
    return [*said]


def _tables(shown: Overview, width: int, most: Sequence[int]) -> list[Table]:
    return [
        table("models", MODELS, shown.models, width, most[0]),
        table("workers", WORKERS, shown.workers, width, most[1]),
        table("frontends", FRONTENDS, shown.frontends, width, most[2]),
    ]


def _cards(history: Sequence[Totals], width: int) -> Table:
    grid, many = Table.grid(expand=True), max(min(width // CARD_CELLS, len(CARDS)), 1)
    for _ in range(many):
        grid.add_column(ratio=1)
    grid.add_row(*(_card(*card, history, width // many - 4) for card in CARDS[:many]))
    return grid


def _card(
    title: str, value: Value, written: Callable[[Totals], Text], style: str, history: Sequence[Totals], cells: int
) -> Panel:
    now = Text(title, style="dim", no_wrap=True, overflow="ellipsis").append("  ").append(written(history[-1]))
    past = Text(sparkline([value(totals) for totals in history], cells), style=style, no_wrap=True)
    return Panel(Group(now, past), box=ROUNDED, border_style="dim")


def _alarming(value: float | None) -> Text:
    text = number(value)
    return Text(text.plain, style="red") if value else text
