"""Writes the page: its figures and tables are made here, and laid out by the template beside this file in the base that
load tests' reports have too."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

import millrace.load.report
from millrace.evaluating.report import figures
from millrace.evaluating.report.words import (
    comparison_rows,
    confused,
    failure_rows,
    label_rows,
    measure_rows,
    tiles,
    verdict,
)
from millrace.evaluating.result import Result, System
from millrace.load.report.pages import Panel
from millrace.load.report.style import styled, svg
from millrace.load.report.summary import table

TEMPLATES = [Path(__file__).parent, Path(millrace.load.report.__file__).parent]


def write_report(result: Result, path: Path) -> None:
    """One HTML file that needs nothing but itself: no script, nothing from elsewhere."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    with styled():
        panels = [*_panels(result.system)]
    page = environment.get_template("evaluation.html.j2").render(
        result=result,
        panels=panels,
        tiles=[*tiles(result)],
        measures=[*measure_rows(result.system)],
        comparison=comparison_rows(result.comparison) if result.comparison else [],
        verdict=verdict(result.comparison) if result.comparison else "",
        labels=[*label_rows(result.system)],
        confused=[*confused(result.system)],
        failures=[*failure_rows(result)],
        settings=table(result.settings),
        versions=table(result.versions),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")


def _panels(system: System) -> Iterator[Panel]:
    drawn: Sequence[tuple[str, str, Figure | None]] = (
        ("Confusion matrix", "Examples by right label and by the one given.", figures.confusion(system)),
        ("ROC", "Each label against all others. Named are those with the smallest area.", figures.roc(system.roc)),
        (
            "Precision over recall",
            "Each label against all others. Named are those with the lowest average precision.",
            figures.precision_recall(system.precision_recall),
        ),
        (
            "Calibration",
            "How often answers are right, over how sure they are.",
            figures.calibration(system.calibration),
        ),
    )
    for title, caption, figure in drawn:
        if figure is not None:
            yield Panel(title=title, caption=caption, svg=Markup(svg(figure, title)))
