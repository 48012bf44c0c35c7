"""Figures of how long requests took."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from millrace.load.buckets import Array, stack
from millrace.load.report.series import Series
from millrace.load.report.style import C, figure, limit, logarithmic, name_ends
from millrace.load.report.timeline import over_time
from millrace.load.result import Metric, Result

SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
SHOWN_FROM = 0.02
"""Below this share, the distribution may leave its axis: messages that arrive together are no time apart."""
COLOURS = {"p50": C["low"], "p90": C["middle"], "p99": C["high"]}
NAMED: dict[Metric, str] = {"e2e": "e2e", "ttft": "TTFT", "tpot": "TPOT", "itl": "ITL"}


def latency_over_time(result: Result, series: Series, metric: Metric, limit_ms: float | None) -> Figure | None:
    """p50, p90 and p99 of each group; None where nothing was recorded."""
    if not series.intervals:
        return None
    quantiles = series.quantiles(metric, list(SHARES.values()))
    if not np.isfinite(quantiles).any():
        return None
    drawn = figure()
    axes = drawn.subplots()
    logarithmic(axes, float(np.nanmin(quantiles)), reach(float(np.nanmax(quantiles)), limit_ms))
    axes.fill_between(series.at_s, quantiles[0], quantiles[-1], color=C["middle"], alpha=0.12, linewidth=0)
    for name, line in zip(SHARES, quantiles, strict=True):
        axes.plot(series.at_s, line, color=COLOURS[name])
    over_time(axes, result, end_s=float(series.end_s[-1]))
    mark_limit(axes, limit_ms)
    name_ends(axes, [(_last(line), name, COLOURS[name]) for name, line in zip(SHARES, quantiles, strict=True)])
    return drawn


def distribution(result: Result) -> Figure | None:
    """Of all metrics, every percentile up to the slowest request: as far right as there are requests to say so."""
    drawn = figure()
    axes = drawn.subplots()
    ends, lowest, highest, widest = [], np.inf, 0.0, 1.0
    for metric, name in NAMED.items():
        held = stack([result.total.histograms.get(metric)])
        total = float(held.totals()[0])
        if not total:
            continue
        ranks = np.cumsum(held.counts[0], dtype=np.float64)
        nines = _nines(np.minimum(np.concatenate([[0.0], ranks]), total - 0.5) / total)
        values = np.concatenate([held.values_ms[:1], held.values_ms])
        axes.plot(nines, values, color=C[metric], drawstyle="steps-pre")
        ends.append((float(values[-1]), name, C[metric]))
        lowest, highest = min(lowest, float(held.quantiles([SHOWN_FROM])[0, 0])), max(highest, float(values[-1]))
        widest = max(widest, float(nines[-1]))
    if not ends:
        return None
    logarithmic(axes, max(lowest, highest / 1e4), highest)
    ticks = [0.5, *(1 - 10.0**-nines for nines in range(1, int(widest) + 1))]
    axes.set_xticks(_nines(np.array(ticks)), [f"{100 * share:.6g} %" for share in ticks])
    axes.set_xlim(0, widest)
    axes.set_xlabel("percentile")
    name_ends(axes, ends)
    return drawn


def _nines(shares: Array) -> Array:
    """0.9: 1, 0.99: 2, 0.999: 3."""
    nines: Array = -np.log10(1 - shares)
    return nines


def _last(line: Array) -> float:
    """The last figure that there is."""
    return float(line[np.isfinite(line)][-1])


def reach(highest: float, limit_ms: float | None) -> float:
    """Up to the limit, unless it is so far up that it would flatten the rest."""
    return max(highest, limit_ms) if limit_ms and limit_ms < 20 * highest else highest


def mark_limit(axes: Axes, limit_ms: float | None) -> None:
    if limit_ms and limit_ms < axes.get_ylim()[1]:
        limit(axes, limit_ms, f"SLO {limit_ms:,g} ms")
