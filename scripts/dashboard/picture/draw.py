"""Panels in the dashboard's layout, as one PNG."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator
from PIL import Image

from millrace.load.report import style
from scripts.dashboard.panels import Panel

INK, MUTED, GRID, SURFACE = "#17202b", "#5b6776", "#e4e8ed", "#ffffff"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#a8588f", "#e69f00", "#56b4e9", "#8592a0")
RC: Any = {
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "figure.facecolor": SURFACE,
    "font.size": 7.5,
    "grid.color": GRID,
    "lines.linewidth": 1.2,
    "text.color": INK,
    "xtick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.color": GRID,
    "ytick.labelcolor": MUTED,
}
INCHES, DPI = (16.0, 15.2), 100
CAPTION = "Drawn from the dashboard's own queries by scripts/dashboard, not by Grafana."


@dataclass(frozen=True, slots=True)
class Drawn:
    name: str
    points: tuple[tuple[float, float], ...]


Shown = tuple[Panel, Sequence[Drawn]]


def draw(path: Path, rows: Sequence[tuple[str, Sequence[Shown]]], story: str, begin: float, end: float) -> None:
    """`rows`: their titles and panels. Times, in seconds since 1970, are told in seconds since `begin`."""
    with matplotlib.rc_context(style.RC | RC):
        figure = Figure(figsize=INCHES, dpi=DPI, layout="constrained")
        figure.suptitle(f"{story} {CAPTION}", x=0.006, ha="left", fontsize=10, color=MUTED)
        stripes = figure.subfigures(len(rows), 1, hspace=0.02)
        for stripe, (title, panels) in zip(np.atleast_1d(np.asarray(stripes)), rows, strict=True):
            stripe.suptitle(title, x=0.006, ha="left", fontsize=10.5, fontweight="bold")
            for axes, (panel, lines) in zip(np.ravel(stripe.subplots(1, len(panels))), panels, strict=True):
                _draw_panel(axes, panel, lines, begin)
                axes.set_xlim(0, end - begin)
        figure.savefig(path)
    with Image.open(path) as image:
        image.convert("RGB").quantize(96).save(path, optimize=True)


def _draw_panel(axes: Axes, panel: Panel, lines: Sequence[Drawn], begin: float) -> None:
    axes.set_title(panel.title, loc="left", fontsize=8.5)
    colours = [COLOURS[place % len(COLOURS)] for place in range(len(lines))]
    if panel.stacked:
        times, heights = _aligned(lines)
        axes.stackplot([at - begin for at in times], heights, colors=colours, alpha=0.75, linewidth=0)
    else:
        for line, colour in zip(lines, colours, strict=True):
            axes.plot([at - begin for at, _ in line.points], [value for _, value in line.points], color=colour)
    axes.set_ylim(0, panel.most or max(axes.get_ylim()[1], 1e-3))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} s"))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _text(value, panel.unit)))
    handles = [Line2D([], [], color=colour, linewidth=4) for colour in colours]
    axes.legend(
        handles,
        [line.name for line in lines],
        loc="upper center",
        bbox_to_anchor=(0.5, -0.09),
        ncols=3,
        frameon=False,
        fontsize=7,
        handlelength=0.8,
        columnspacing=1.0,
    )


def _aligned(lines: Sequence[Drawn]) -> tuple[list[float], list[npt.NDArray[np.float64]]]:
    """All moments, and each line's values at them: 0 before its first and behind its last."""
    times = sorted({at for line in lines for at, _ in line.points})
    heights = []
    for line in lines:
        known = np.array([point for point in line.points if np.isfinite(point[1])]).reshape(-1, 2)
        heights.append(np.interp(times, known[:, 0], known[:, 1], left=0.0, right=0.0))
    return times, heights


def _text(value: float, unit: str) -> str:
    if unit == "percentunit":
        return f"{100 * value:g} %"
    if unit == "s" and 0 < value < 1:
        return f"{1000 * value:g} ms"
    return f"{value:,g}" + {"s": " s", "reqps": "/s"}.get(unit, "")
