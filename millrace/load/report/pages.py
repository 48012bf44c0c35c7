"""Writes the pages: every figure and table is made here and laid out by the templates beside this file."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from millrace.load.report import summary
from millrace.load.report.latency import distribution, latency_over_time
from millrace.load.report.series import latency_series, series
from millrace.load.report.style import number, styled, svg
from millrace.load.report.throughput import latency_over_load, throughput_over_callers, throughput_over_load
from millrace.load.report.timeline import (
    batch_size,
    errors_over_time,
    goodput_over_time,
    in_flight,
    queue_depth,
    tokens_per_second,
)
from millrace.load.result import Metric, Result, Stage
from millrace.load.scenario import Slo
from millrace.load.sweeping.knee import knee
from millrace.load.sweeping.points import Sweep

LEAST_STAGES = 3
"""Loads from which a curve over the load is worth drawing."""
LATENCIES: tuple[Metric, ...] = ("e2e", "ttft")


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """A figure with what to read in it."""

    title: str
    caption: str
    svg: Markup


def write_report(result: Result, path: Path) -> None:
    """One HTML file that needs nothing but itself."""
    unit = summary.token_unit(result.task)
    slo = result.scenario.slo
    with styled():
        panels = [*_run_panels(result, unit)]
    _write(
        path,
        "report.html.j2",
        result=result,
        panels=panels,
        unit=unit,
        tiles=[*summary.tiles(result)],
        limits=[*summary.limits(result.total, slo)] if slo else [],
        percentile_columns=["requests or gaps", "mean", *summary.SHARES, "max"],
        percentiles=[*summary.percentiles(result.total)],
        errors=summary.errors(result.total),
        stages=[*summary.stages(result.stages)],
        stage_columns=summary.STAGE_COLUMNS,
        settings=summary.settings(result.scenario),
    )


def write_sweep_report(sweep: Sweep, path: Path) -> None:
    """The same of a sweep."""
    with styled():
        panels = [*_sweep_panels(sweep)]
    _write(
        path,
        "sweep.html.j2",
        sweep=sweep,
        panels=panels,
        unit=summary.token_unit(sweep.task),
        tiles=[*summary.sweep_tiles(sweep)],
        columns=list(summary.STAGE_COLUMNS[2:]),
        tables=[
            ("Open loops", "A run at each rate.", "planned, /s", [*summary.points(sweep.points, sweep.best_rate)]),
            ("Closed loops", "A run with each number of callers.", "callers", [*summary.points(sweep.closed, None)]),
        ],
        notes=sweep.notes,
        slo=summary.table(sweep.slo.model_dump()),
        settings=summary.settings(sweep.scenario),
    )


def _write(path: Path, template: str, **context: Any) -> None:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "percent": summary.percent, "table": summary.table}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(environment.get_template(template).render(**context), encoding="utf-8")


def _panel(title: str, caption: str, drawn: Figure | None) -> Iterator[Panel]:
    if drawn is not None:
        yield Panel(title=title, caption=caption, svg=Markup(svg(drawn, title)))


def _run_panels(result: Result, unit: str) -> Iterator[Panel]:
    yield from _latency_panels(result)
    yield from _panel(
        "Latency distribution",
        "Every percentile of all requests measured. Both axes are logarithmic: each step to the right is another nine.",
        distribution(result),
    )
    yield from _load_panels(result.stages, result.scenario.slo)
    if result.intervals:
        yield from _time_panels(result, unit)
    yield from _server_panels(result)


def _latency_panels(result: Result) -> Iterator[Panel]:
    grouped = latency_series(result)
    if not grouped.intervals:
        return
    seconds = float(grouped.seconds[0])
    for metric in LATENCIES:
        yield from _panel(
            f"{summary.TITLES[metric]}, over time",
            f"Percentiles of the requests that ended in each {seconds:.3g} s; those of the warm-up are left out.",
            latency_over_time(result, grouped, metric, _limit_ms(result.scenario.slo, metric)),
        )


def certain_knee(given: Sequence[Stage]) -> float | None:
    """The knee, where what was not answered beyond it is more than three deviations of a Poisson count: stages are
    short, and what one leaves over the next one answers."""
    bend = knee([(stage.offered_rate, stage.throughput) for stage in given])
    beyond = [stage for stage in given if bend is not None and stage.offered_rate > bend]
    due = sum(stage.due for stage in beyond)
    return bend if due - sum(stage.answered for stage in beyond) > 3 * math.sqrt(due) else None


def _load_panels(stages: Sequence[Stage], slo: Slo | None) -> Iterator[Panel]:
    open_loops = [stage for stage in stages if stage.rate is not None and stage.due]
    if len(open_loops) < LEAST_STAGES:
        return
    bend = certain_knee(open_loops)
    yield from _panel(
        "Throughput against offered load",
        f"A point for each stage. {_knee_sentence(bend)}",
        throughput_over_load(open_loops, knee=bend, limited=slo is not None),
    )
    yield from _panel(
        "End to end, against offered load",
        "Percentiles of the requests that were due in each stage.",
        latency_over_load(open_loops, "e2e", limit_ms=_limit_ms(slo, "e2e")),
    )


def _time_panels(result: Result, unit: str) -> Iterator[Panel]:
    grouped = series(result)
    good = "met every limit of the SLO" if result.scenario.slo else "ended OK, as there is no SLO"
    yield from _panel(
        "Goodput, over time",
        f"Requests a second, and the share of those that {good}.",
        goodput_over_time(result, grouped),
    )
    yield from _panel("Errors, over time", "Refused or failed requests, by code.", errors_over_time(result, grouped))
    yield from _panel("Requests in flight", "Sent, and not yet ended.", in_flight(result, grouped))
    yield from _panel(
        f"{unit.capitalize()} received", "By all callers together.", tokens_per_second(result, grouped, unit)
    )


def _server_panels(result: Result) -> Iterator[Panel]:
    yield from _panel(
        "Queue depth", "Jobs of this model that waited and that ran, from the frontends' /metrics.", queue_depth(result)
    )
    yield from _panel(
        "Batch size", "Rows or sequences in a step of a worker, mean between two samples.", batch_size(result)
    )


def _sweep_panels(sweep: Sweep) -> Iterator[Panel]:
    stages = [point.stage for point in sweep.points if point.stage.due]
    if stages:
        yield from _panel(
            "Throughput against offered load",
            f"A point for each run of an open loop. {_knee_sentence(sweep.knee)}",
            throughput_over_load(stages, knee=sweep.knee, best=sweep.best_rate),
        )
        for metric in ("e2e", "ttft", "tpot"):
            yield from _panel(
                f"{summary.TITLES[metric]}, against offered load",
                "Percentiles of the requests that were due in each run.",
                latency_over_load(stages, metric, limit_ms=_limit_ms(sweep.slo, metric), best=sweep.best_rate),
            )
    if len(sweep.closed) >= LEAST_STAGES:
        yield from _panel(
            "Throughput against callers",
            "A closed loop: each caller calls again when it is answered.",
            throughput_over_callers([point.stage for point in sweep.closed], slots=sweep.slots),
        )


def _knee_sentence(bend: float | None) -> str:
    if bend is None:
        return "Answers follow the load as far as it was raised: there is no knee."
    return f"Answers stop following the load at {number(bend)} requests/s."


def _limit_ms(slo: Slo | None, metric: Metric) -> float | None:
    limits: Mapping[str, float | None] = {"e2e": slo.e2e_ms, "ttft": slo.ttft_ms, "tpot": slo.tpot_ms} if slo else {}
    return limits.get(metric)
