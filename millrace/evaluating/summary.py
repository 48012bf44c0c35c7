"""An evaluation's result for a terminal."""

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from millrace.evaluating.report.words import comparison_rows, measure_rows, verdict
from millrace.evaluating.result import Comparison, Result, System

COLOURS = {"better": "green", "worse": "bold red", "same": ""}


def summary(result: Result) -> RenderableType:
    parts: list[RenderableType] = [_heading(result), _measures(result.system)]
    if result.comparison is not None:
        parts += [_comparison(result.comparison), Text(verdict(result.comparison), COLOURS[result.comparison.verdict])]
    for one in result.system.failures:
        parts.append(
            Text(f"{one.count} without an answer, {one.code} {one.reason}, as {one.id}: {one.message}", "yellow")
        )
    return Group(*parts)


def _heading(result: Result) -> Text:
    counts = f"{result.system.answered:,} of {result.data.examples:,} examples answered"
    return Text.assemble((result.system.title, "bold"), f" on {result.data.name}: {counts} in {result.seconds:.1f} s")


def _measures(system: System) -> Table:
    table = Table("", box=SIMPLE_HEAD, pad_edge=False)
    for title in ("value", "95 % interval"):
        table.add_column(title, justify="right")
    for row in measure_rows(system):
        table.add_row(*(Text(cell) for cell in row[:3]))
    return table


def _comparison(found: Comparison) -> Table:
    table = Table("", box=SIMPLE_HEAD, pad_edge=False)
    for title in (found.before, found.after, "difference", "95 % interval"):
        table.add_column(Text(title), justify="right")
    for row in comparison_rows(found):
        table.add_row(*(Text(cell) for cell in row))
    return table
