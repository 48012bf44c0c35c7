"""What was measured, beside what was aimed at: tables for people, JSON for machines."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from bench import machine

SCHEMA_VERSION = 1
NOISY_CORES = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One figure of the service. The aim is for the ratio where there is one, else for the value."""

    name: str
    value: float
    unit: str
    bare: float | None = None
    """The same of the bare runtime."""
    ratios: tuple[float, ...] = ()
    """Of each round."""
    aim: float | None = None
    better: Literal["more", "less"] = "more"

    @property
    def ratio(self) -> float | None:
        return statistics.median(self.ratios) if self.ratios else None

    @property
    def reached(self) -> bool | None:
        """None without an aim."""
        if self.aim is None:
            return None
        judged = self.value if self.ratio is None else self.ratio
        return judged >= self.aim if self.better == "more" else judged <= self.aim


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Numbers of others, which were not measured in this run."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part's figures, and all that they were made from."""

    name: str
    title: str
    figures: tuple[Figure, ...]
    notes: tuple[str, ...] = ()
    comparison: Comparison | None = None
    beside: str = "bare"
    """Whose figures stand beside the service's."""
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """With what, on what and beside what something was measured."""

    settings: dict[str, Any]
    versions: dict[str, str]
    hardware: dict[str, Any]
    seconds: float
    others_cores: float
    """What other processes took of the cores meanwhile, on average."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report(Run):
    """A whole run."""

    parts: tuple[Part, ...]

    def to_json(self) -> str:
        parts = {
            part.name: {
                "title": part.title,
                "figures": [
                    asdict(figure) | {"ratio": figure.ratio, "reached": figure.reached} for figure in part.figures
                ],
                "notes": part.notes,
                "data": part.data,
            }
            for part in self.parts
        }
        whole = asdict(self) | {"schema_version": SCHEMA_VERSION, "parts": parts}
        return json.dumps(whole, indent=1)


def make_report(settings: Any, parts: Sequence[Part], watch: machine.Watch) -> Report:
    """Of a run that ends here. `settings`: a dataclass."""
    return Report(**describe_run(settings, watch), parts=tuple(parts))


def describe_run(settings: Any, watch: machine.Watch) -> dict[str, Any]:
    """The fields of `Run`, of one that ends here."""
    return {
        "settings": asdict(settings),
        "versions": machine.versions(),
        "hardware": machine.hardware(),
        "seconds": watch.seconds,
        "others_cores": watch.others(),
    }


def show(report: Report, console: Console) -> None:
    """Prints every part's table, and what it says beside it."""
    for part in report.parts:
        console.print()
        console.print(_table(part) if part.figures else part.title)
        for note in part.notes:
            console.print(f"  {note}", style="dim", highlight=False)
        if part.comparison is not None:
            console.print(_comparison(part.comparison))
    aimed = [figure.reached for part in report.parts for figure in part.figures if figure.reached is not None]
    if report.others_cores > NOISY_CORES:
        console.print(
            f"\n[red]Others used {report.others_cores:.2f} of the cores meanwhile: these figures are rough.[/]"
        )
    console.print(f"\n{sum(aimed)} of {len(aimed)} aims reached, in {report.seconds / 60:.1f} minutes")


def spread(values: Sequence[float]) -> str:
    """The least and the most."""
    return f"{min(values):.2f} to {max(values):.2f}"


def write_number(value: float) -> str:
    """Three digits, or all of them where there are more."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _table(part: Part) -> Table:
    table = Table(
        "", "service", part.beside, "ratio", "of the rounds", "aim", "reached", title=part.title, title_justify="left"
    )
    for figure in part.figures:
        table.add_row(
            figure.name,
            f"{write_number(figure.value)} {figure.unit}",
            "" if figure.bare is None else f"{write_number(figure.bare)} {figure.unit}",
            "" if figure.ratio is None else f"{figure.ratio:.3f}",
            spread(figure.ratios) if len(figure.ratios) > 1 else "",
            _aim(figure),
            {None: "", True: "[green]yes[/]", False: "[red]no[/]"}[figure.reached],
        )
    return table


def _aim(figure: Figure) -> str:
    if figure.aim is None:
        return ""
    unit = "" if figure.ratios else f" {figure.unit}"
    return f"{'≥' if figure.better == 'more' else '≤'} {write_number(figure.aim)}{unit}"


def _comparison(comparison: Comparison) -> Table:
    table = Table(*comparison.columns, title=comparison.title, title_justify="left")
    for row in comparison.rows:
        table.add_row(*row)
    return table
