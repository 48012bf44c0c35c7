"""A result in words and figures, for the page and for a terminal."""

from collections.abc import Iterator

from millrace.evaluating.kinds import PRIMARY
from millrace.evaluating.result import Comparison, Result, System
from millrace.evaluating.scores.resampling import Difference, Measure
from millrace.load.report.style import NOTHING
from millrace.load.report.summary import Tile

TILES = 5
REPEATING = "_micro"
"""Measures that say again what accuracy says: they are in the result alone."""
MOST_ROWS = 100
"""Of labels, and of confused pairs a tenth."""
NAMES = {
    "auc": "AUC",
    "bits_per_byte": "bits per byte",
    "cer": "character error rate",
    "ece": "calibration error",
    "exact_match": "exact match",
    "f1": "F1",
    "mrr@10": "MRR@10",
    "ndcg@10": "nDCG@10",
    "wer": "word error rate",
}
SHARES_BUT = {"perplexity", "bits_per_byte"}
"""Measures that are no shares of 1."""


def name(measure: str) -> str:
    """As a reader calls it."""
    if measure in NAMES:
        return NAMES[measure]
    base, _, average = measure.rpartition("_")
    return f"{NAMES.get(base, base.replace('_', ' '))}, {average}" if base else measure


def value(measure: str, figure: float | None) -> str:
    if figure is None:
        return NOTHING
    return f"{figure:,.4g}" if measure in SHARES_BUT else f"{100 * figure:.2f} %"


def tiles(result: Result) -> Iterator[Tile]:
    """The primary measure first; then others, and how many examples were answered."""
    system, primary = result.system, PRIMARY[result.kind]
    ranked = sorted(system.measures, key=lambda one: one.name != primary)
    for one in [each for each in ranked if not each.name.endswith(("_micro", "_weighted"))][:TILES]:
        figure, _, unit = value(one.name, one.value).partition(" ")
        title = name(one.name)
        yield Tile(name=title[0].upper() + title[1:], figure=figure, unit=unit, remark=interval(one))
    share = system.failed / max(result.data.examples, 1)
    yield Tile(name="Answered", figure=f"{system.answered:,}", remark=f"of {result.data.examples:,}")
    yield Tile(
        name="Failed", figure=f"{system.failed:,}", remark=f"{100 * share:.3g} %", tone="bad" if system.failed else ""
    )


def interval(one: Measure | Difference) -> str:
    """Its 95 % interval, where there is one."""
    if one.low is None or one.high is None:
        return NOTHING
    if isinstance(one, Difference):
        return f"{_signed(one.name, one.low)} to {_signed(one.name, one.high)}".replace(" points to", " to")
    return f"{value(one.name, one.low)} to {value(one.name, one.high)}".replace(" % to", " to")


def measure_rows(system: System) -> Iterator[list[str]]:
    for one in system.measures:
        if one.name.endswith(REPEATING):
            continue
        yield [name(one.name), value(one.name, one.value), interval(one), "lower" if one.lower_is_better else "higher"]


def comparison_rows(found: Comparison) -> list[list[str]]:
    return [
        [
            name(row.name),
            value(row.name, row.before),
            value(row.name, row.after),
            _signed(row.name, row.difference),
            interval(row),
        ]
        for row in found.rows
        if not row.name.endswith(REPEATING)
    ]


def verdict(found: Comparison) -> str:
    """In a sentence."""
    words = {
        "same": f"No difference in {name(found.primary)} that could not be chance.",
        "better": f"{found.after} is better by {name(found.primary)}.",
        "worse": f"{found.after} is worse by {name(found.primary)}.",
    }
    if found.p_value is None:
        return f"{words[found.verdict]} {found.test.capitalize()}, {found.examples:,} in common."
    counts = f"{found.only_after:,} are right only in {found.after}, {found.only_before:,} only in {found.before}"
    return f"{words[found.verdict]} {found.test}: p = {found.p_value:.3g}; of {found.examples:,}, {counts}."


def label_rows(system: System) -> Iterator[list[str]]:
    """The worst first, where there are too many."""
    rows = system.labels
    if len(rows) > MOST_ROWS:
        rows = sorted(rows, key=lambda one: one.f1)[:MOST_ROWS]
    for one in rows:
        yield [one.label, *(value("", share) for share in (one.precision, one.recall, one.f1)), f"{one.support:,}"]


def confused(system: System) -> Iterator[list[str]]:
    """Right label, given label, how often: the most frequent first."""
    names = [one.label for one in system.labels]
    found = [
        (cell, names[row], names[column])
        for row, cells in enumerate(system.confusion)
        for column, cell in enumerate(cells)
        if cell and row != column
    ]
    for cell, right, given in sorted(found, key=lambda one: -one[0])[: MOST_ROWS // 10]:
        yield [right, given, f"{cell:,}"]


def failure_rows(result: Result) -> Iterator[list[str]]:
    for system in (result.system, result.against):
        for one in system.failures if system else ():
            which = f"{system.title} " if system and result.against else ""
            yield [f"{which}{one.code} {one.reason}", f"{one.count:,}", one.id, one.message]


def _signed(measure: str, difference: float) -> str:
    return f"{difference:+,.4g}" if measure in SHARES_BUT else f"{100 * difference:+.2f} points"
