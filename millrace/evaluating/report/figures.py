"""What a classification looks like, in the style of the load tests' figures."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter

from millrace.evaluating.result import Bin, Curve, System
from millrace.load.report.style import ERRORS, C, figure

MOST_LABELS = 24
"""Labels of which a confusion matrix is still readable."""
FEW_LABELS = 12
"""Labels up to which it is as high as the other figures."""
MOST_NAMED = 5
"""Curves that have a colour and a name: the worst."""
LABEL_CHARACTERS = 12


def confusion(system: System) -> Figure | None:
    """Shares of each right label's examples; None where there are too many labels."""
    count = len(system.labels)
    if not 2 <= count <= MOST_LABELS:
        return None
    drawn = figure() if count <= FEW_LABELS else Figure(figsize=(6.2, 5.4))
    drawn.subplots_adjust(left=0.16, right=0.97, bottom=0.16, top=0.98)
    axes = drawn.subplots()
    for row, cells in enumerate(system.confusion):
        for column, cell in enumerate(cells):
            _cell(axes, row, column, cell, cell / max(sum(cells), 1), count)
    names = [short(one.label) for one in system.labels]
    axes.set_xlim(0, count)
    axes.set_ylim(count, 0)
    axes.set_xticks([place + 0.5 for place in range(count)], names, rotation=90 if longest(names) > 3 else 0)
    axes.set_yticks([place + 0.5 for place in range(count)], names)
    axes.set_xlabel("given")
    axes.set_ylabel("right")
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.spines["bottom"].set_visible(False)
    return drawn


def _cell(axes: Axes, row: int, column: int, cell: int, share: float, count: int) -> None:
    if not cell:
        axes.add_patch(Rectangle((column + 0.02, row + 0.02), 0.96, 0.96, color=C["shade"], linewidth=0))
        return
    colour = C["good"] if row == column else C["limit"]
    place = (column + 0.02, row + 0.02)
    axes.add_patch(Rectangle(place, 0.96, 0.96, facecolor=colour, alpha=0.15 + 0.5 * share, linewidth=0))
    size = 9 if count <= FEW_LABELS else 6
    axes.text(column + 0.5, row + 0.5, f"{cell:,}", ha="center", va="center", fontsize=size, color=C["ink"])


def roc(curves: Sequence[Curve]) -> Figure | None:
    """True positives over false ones."""
    return _curves(curves, "false positive rate", "true positive rate", "AUC", diagonal=True)


def precision_recall(curves: Sequence[Curve]) -> Figure | None:
    return _curves(curves, "recall", "precision", "AP", diagonal=False)


def calibration(bins: Sequence[Bin]) -> Figure | None:
    """How often answers are right, over how sure they are; the size of a point is how many there are."""
    if not bins:
        return None
    drawn = figure()
    drawn.subplots_adjust(right=0.97)
    axes = drawn.subplots()
    axes.plot([0, 1], [0, 1], color=C["muted"], linewidth=1, linestyle=(0, (4, 3)))
    most = max(one.examples for one in bins)
    sure, right = [one.confidence for one in bins], [one.accuracy for one in bins]
    axes.plot(sure, right, color=C["middle"])
    axes.scatter(sure, right, s=[12 + 120 * one.examples / most for one in bins], color=C["middle"], linewidth=0)
    _unit_axes(axes, "probability of the answer", "right")
    return drawn


def _curves(curves: Sequence[Curve], x: str, y: str, area: str, *, diagonal: bool) -> Figure | None:
    """The worst have colours and names."""
    if not curves:
        return None
    drawn = figure()
    drawn.subplots_adjust(right=0.97)
    axes = drawn.subplots()
    if diagonal:
        axes.plot([0, 1], [0, 1], color=C["muted"], linewidth=1, linestyle=(0, (4, 3)))
    worst = sorted(curves, key=lambda one: one.area)[:MOST_NAMED]
    for curve in curves:
        if curve not in worst:
            axes.plot(curve.x, curve.y, color=C["grid"], linewidth=1.1)
    for curve, colour in zip(worst, ERRORS, strict=False):
        axes.plot(curve.x, curve.y, color=colour, label=f"{short(curve.label)}  {area} {curve.area:.3f}")
    _unit_axes(axes, x, y)
    legend = axes.legend(loc="lower right" if diagonal else "lower left", frameon=False, fontsize=8)
    for text in legend.get_texts():
        text.set_color(C["ink"])
    return drawn


def _unit_axes(axes: Axes, x: str, y: str) -> None:
    axes.set_xlim(-0.015, 1.015)
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def short(label: str) -> str:
    """In the space that there is."""
    return label if len(label) <= LABEL_CHARACTERS else label[: LABEL_CHARACTERS - 1] + "…"


def longest(names: Sequence[str]) -> int:
    return max(map(len, names), default=0)
