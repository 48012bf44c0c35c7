"""Figures of what happened when."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from millrace.load.buckets import Array
from millrace.load.report.series import Series
from millrace.load.report.style import ERRORS, C, figure, from_zero, name_ends, number
from millrace.load.result import OK, Counts, Interval, Result, ServerSample

NARROW = 0.035
"""Of the time axis: a stretch narrower than this has no room for its name."""


def over_time(axes: Axes, result: Result, end_s: float, *, named: bool = True) -> None:
    """The time axis: warm-up and what drained after the end are shaded, and named where asked and there is room;
    stages are parted."""
    scenario = result.scenario
    begin = min([-scenario.warmup_s, *(one.at_s for one in result.intervals[:1])])
    end_s = max(end_s, scenario.seconds)
    axes.set_xlim(begin, end_s)
    axes.set_xlabel("seconds since measuring began")
    for low, high, text in ((begin, 0.0, "warm-up"), (scenario.seconds, end_s, "drain")):
        if high - low > 0.002 * (end_s - begin):
            axes.axvspan(low, high, color=C["shade"], linewidth=0, zorder=0)
        if named and high - low > NARROW * (end_s - begin):
            axes.annotate(
                text,
                xy=((low + high) / 2, 1),
                xycoords=axes.get_xaxis_transform(),
                xytext=(0, -4),
                textcoords="offset points",
                ha="center",
                va="top",
                rotation="vertical",
                color=C["muted"],
                fontsize=8,
            )
    for stage in result.stages[1:]:
        axes.axvline(stage.begin_s, color=C["grid"], linewidth=1, linestyle=(0, (1, 2)), zorder=0.5)


def goodput_over_time(result: Result, series: Series) -> Figure:
    """Above, requests a second: due, answered and good. Below, the share of those that ended which was good."""
    drawn = figure()
    above, below = drawn.subplots(2, 1, sharex=True, height_ratios=(2.4, 1))
    rates = {
        "due": (series.rate(lambda one: one.due), C["offered"]),
        "answered": (series.rate(lambda one: one.ok), C["answered"]),
        "good": (series.rate(lambda one: one.good), C["good"]),
    }
    for rate, colour in rates.values():
        above.plot(series.at_s, rate, color=colour)
    above.fill_between(series.at_s, rates["good"][0], color=C["good"], alpha=0.12, linewidth=0)
    ended = series.sum(lambda one: one.all_ended)
    good = np.divide(series.sum(lambda one: one.good), ended, out=np.full(len(ended), np.nan), where=ended > 0)
    below.plot(series.at_s, good, color=C["good"])
    below.fill_between(series.at_s, good, color=C["good"], alpha=0.12, linewidth=0)
    below.set_ylim(0, 1.04)
    below.set_yticks([0, 0.5, 1])
    below.yaxis.set_major_formatter(PercentFormatter(1))
    below.set_ylabel("good")
    for axes in (above, below):
        over_time(axes, result, float(series.end_s[-1]), named=axes is above)
    above.set_xlabel("")
    from_zero(above, "requests/s")
    drawn.align_ylabels()
    measured = _measured(result, series)
    name_ends(above, [(_mean(rate[measured]), name, colour) for name, (rate, colour) in rates.items()])
    return drawn


def errors_over_time(result: Result, series: Series) -> Figure | None:
    """Stacked by code, the most frequent at the bottom; None where there were none."""
    totals: dict[str, int] = {}
    for one in result.intervals:
        for code, count in one.ended.items():
            totals[code] = totals.get(code, 0) + count
    codes = sorted((code for code in totals if code != OK and totals[code]), key=lambda code: -totals[code])
    if not codes:
        return None
    shown = codes if len(codes) <= len(ERRORS) else [*codes[: len(ERRORS) - 1], "others"]
    drawn = figure()
    axes = drawn.subplots()
    base = np.zeros(len(series.groups))
    ends = []
    for code, colour in zip(shown, ERRORS, strict=False):
        these = codes[len(ERRORS) - 1 :] if code == "others" else [code]
        rate = series.rate(lambda one, these=these: sum(one.ended.get(each, 0) for each in these))  # type: ignore[misc]
        axes.bar(series.begin_s, rate, series.end_s - series.begin_s, base, align="edge", color=colour, linewidth=0)
        base = base + rate
        ends.append((float(base[-1]), code, colour))
    over_time(axes, result, float(series.end_s[-1]))
    from_zero(axes, "errors/s")
    name_above(axes, [(name, colour) for _, name, colour in ends])
    return drawn


def one_over_time(result: Result, series: Series, values: Array, unit: str, colour: str) -> Figure:
    """One line, filled below."""
    drawn = figure()
    axes = drawn.subplots()
    axes.plot(series.at_s, values, color=colour)
    axes.fill_between(series.at_s, values, color=colour, alpha=0.12, linewidth=0)
    over_time(axes, result, float(series.end_s[-1]))
    from_zero(axes, unit)
    mean = _mean(values[_measured(result, series)])
    name_ends(axes, [(mean, f"mean\n{number(mean)}", colour)])
    return drawn


def in_flight(result: Result, series: Series) -> Figure:
    return one_over_time(result, series, series.last(lambda one: one.in_flight), "requests in flight", C["answered"])


def tokens_per_second(result: Result, series: Series, unit: str) -> Figure:
    def tokens(one: Interval | Counts) -> float:
        return one.tokens

    return one_over_time(result, series, series.rate(tokens), f"{unit}/s", C["e2e"])


def queue_depth(result: Result) -> Figure | None:
    """Jobs that waited and that ran, as the frontends' metrics had it; None without samples."""
    samples = result.server
    if not samples:
        return None
    drawn = figure()
    axes = drawn.subplots()
    at = [one.at_s for one in samples]
    waiting = np.array([one.waiting_jobs for one in samples])
    running = np.array([one.running_jobs for one in samples])
    axes.stackplot(at, running, waiting, colors=[C["running"], C["waiting"]], alpha=0.75, linewidth=0)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    over_time(axes, result, at[-1])
    from_zero(axes, "jobs")
    name_above(axes, [("running", C["running"]), ("waiting", C["waiting"])])
    return drawn


def batch_size(result: Result) -> Figure | None:
    """Rows in a step, on average between two samples; None where no step ran."""
    at, sizes = _batches(result.server)
    if not np.isfinite(sizes).any():
        return None
    drawn = figure()
    axes = drawn.subplots()
    axes.plot(at, sizes, color=C["tpot"])
    axes.fill_between(at, sizes, color=C["tpot"], alpha=0.12, linewidth=0)
    over_time(axes, result, float(at[-1]))
    from_zero(axes, "rows a step")
    mean = _mean(sizes)
    name_ends(axes, [(mean, f"mean\n{number(mean)}", C["tpot"])])
    return drawn


def name_above(axes: Axes, names: Sequence[tuple[str, str]]) -> None:
    """Names areas above the figure, in their colours."""
    axes.legend(
        handles=[axes.bar([0], [0], color=colour, label=text) for text, colour in names],
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=3,
        frameon=False,
        borderpad=0,
        handlelength=0.9,
        handleheight=0.9,
        columnspacing=1.2,
    )


def _batches(samples: Sequence[ServerSample]) -> tuple[Array, Array]:
    """Moments, and rows for each step since the one before: NaN where none ran, or the counters began anew."""
    runs = np.diff([one.runs for one in samples])
    rows = np.diff([one.rows for one in samples])
    sizes = np.divide(rows, runs, out=np.full(len(runs), np.nan), where=(runs > 0) & (rows >= 0))
    return np.array([one.at_s for one in samples[1:]]), sizes


def _measured(result: Result, series: Series) -> npt.NDArray[np.bool_]:
    """Which of the groups are neither warm-up nor drain; all, if none is."""
    inside = (series.at_s >= 0) & (series.at_s < result.scenario.seconds)
    return inside if inside.any() else np.ones_like(inside)


def _mean(values: Array) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else 0.0
