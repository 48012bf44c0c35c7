"""Figures of what came of each load on offer."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from millrace.load.report.latency import COLOURS, SHARES, mark_limit, reach
from millrace.load.report.style import C, figure, from_zero, limit, logarithmic, name_ends, number
from millrace.load.result import Metric, Stage, quantile_ms


def throughput_over_load(
    stages: Sequence[Stage], *, knee: float | None, best: float | None = None, limited: bool = True
) -> Figure:
    """Answered and good beside the diagonal, on which a service is that keeps up. `best`: the highest rate that met
    the SLO."""
    drawn = figure()
    axes = drawn.subplots()
    stages = sorted(stages, key=lambda stage: stage.offered_rate)
    offered = [stage.offered_rate for stage in stages]
    answered = [stage.throughput for stage in stages]
    good = [stage.goodput for stage in stages]
    top = max(offered)
    axes.plot([0, top], [0, top], color=C["offered"], linestyle=(0, (4, 3)), linewidth=1.2)
    _marked(axes, offered, answered, C["answered"])
    ends = [(top, "offered", C["offered"]), (answered[-1], "answered", C["answered"])]
    if limited:
        _marked(axes, offered, good, C["good"])
        axes.fill_between(offered, good, color=C["good"], alpha=0.1, linewidth=0)
        ends.append((good[-1], "good", C["good"]))
    _over_load(axes, top)
    from_zero(axes, "requests/s")
    _mark(axes, knee, f"knee {number(knee)}/s" if knee else "", 0.06)
    _mark(axes, best, f"SLO met to {number(best)}/s" if best else "", 0.15)
    name_ends(axes, ends)
    return drawn


def latency_over_load(
    stages: Sequence[Stage], metric: Metric, *, limit_ms: float | None, best: float | None = None
) -> Figure | None:
    """p50, p90 and p99 of each stage; None where nothing was recorded."""
    stages = sorted((one for one in stages if one.histograms.get(metric)), key=lambda stage: stage.offered_rate)
    if not stages:
        return None
    drawn = figure()
    axes = drawn.subplots()
    offered = [stage.offered_rate for stage in stages]
    lines = {
        name: [quantile_ms(stage.histograms[metric], share) or np.nan for stage in stages]
        for name, share in SHARES.items()
    }
    logarithmic(axes, min(lines["p50"]), reach(max(lines["p99"]), limit_ms))
    for name, line in lines.items():
        _marked(axes, offered, line, COLOURS[name])
    _over_load(axes, max(offered))
    mark_limit(axes, limit_ms)
    _mark(axes, best, f"SLO met to {number(best)}/s" if best else "", 0.06)
    name_ends(axes, [(line[-1], name, COLOURS[name]) for name, line in lines.items()])
    return drawn


def throughput_over_callers(stages: Sequence[Stage], *, slots: int) -> Figure:
    """A closed loop's: requests a second over the number of callers, on a logarithmic axis."""
    drawn = figure()
    axes = drawn.subplots()
    callers = [stage.callers or 0 for stage in stages]
    answered = [stage.throughput for stage in stages]
    _marked(axes, callers, answered, C["answered"])
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(callers))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter("{x:,g}")
    axes.set_xlabel("callers")
    from_zero(axes, "answered/s")
    limit(axes, max(answered), f"saturation {number(max(answered))}/s")
    _mark(axes, slots, f"{slots:,} callers saturate it", 0.06)
    return drawn


def _marked(axes: Axes, x: Sequence[float], y: Sequence[float], colour: str) -> None:
    axes.plot(x, y, color=colour, marker="o", markersize=5, markeredgecolor=C["surface"], markeredgewidth=1)


def _over_load(axes: Axes, top: float) -> None:
    axes.set_xlim(0, top * 1.02)
    axes.set_xlabel("offered load, requests/s")


def _mark(axes: Axes, x: float | None, text: str, height: float) -> None:
    """A line upright, its name beside it at this height of the axes, on the side where there is room."""
    if x is None:
        return
    axes.axvline(x, color=C["mark"], linewidth=1.3)
    is_right = axes.transAxes.inverted().transform(axes.transData.transform((x, 1.0)))[0] > 0.6
    axes.annotate(
        text,
        xy=(x, height),
        xycoords=axes.get_xaxis_transform(),
        xytext=(-5 if is_right else 5, 0),
        textcoords="offset points",
        ha="right" if is_right else "left",
        va="center",
        color=C["mark"],
        fontweight="bold",
        bbox={"facecolor": C["surface"], "edgecolor": "none", "pad": 1.5, "alpha": 0.8},
    )
