"""`millrace load sweep`: runs at several rates, each shown as it comes."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from millrace.cli.calls import errors
from millrace.cli.load.flags import Flags
from millrace.cli.load.outputs import Outputs
from millrace.cli.load.run import reported
from millrace.cli.load.scenario import ARRIVALS, scenario_of
from millrace.cli.load.summary import NAMES
from millrace.load.live import Watch, watching
from millrace.load.report import write_sweep_report
from millrace.load.result import Metric, Result
from millrace.load.run import run
from millrace.load.scenario import Scenario
from millrace.load.sweeping.points import Point, limits
from millrace.load.sweeping.sweep import Sweep, sweep, write_sweep
from millrace.load.words import figure

ANY_RATE = 1.0


def run_sweep(flags: Flags, outputs: Outputs) -> int:
    """The exit status."""
    return reported(_sweep(flags, outputs))


async def _sweep(flags: Flags, outputs: Outputs) -> int:
    scenario = scenario_of(flags if flags.scenario else _with_any_rate(flags))
    with outputs.files(f"{scenario.name}-sweep", "sweep") as files:
        try:
            found = await sweep(scenario, run=_shown if outputs.live and errors.is_terminal else run, say=_say)
        except asyncio.CancelledError:
            errors.print("Interrupted: nothing was kept.")
            raise
        Console(highlight=False).print(sweep_table(found), conclusion(found))
        files.write(partial(write_sweep, found), partial(write_sweep_report, found))
    return 0


def _with_any_rate(flags: Flags) -> Flags:
    """A scenario has arrivals, though a sweep chooses its own."""
    return flags if any(getattr(flags, name) is not None for name in ARRIVALS) else replace(flags, rate=ANY_RATE)


async def _shown(scenario: Scenario, _: Watch) -> Result:
    with watching(scenario, errors, live=True) as watch:
        return await run(scenario, watch)


def _say(sentence: str) -> None:
    errors.print(sentence, markup=False, soft_wrap=True)


def sweep_table(found: Sweep) -> Table:
    """The open loops, by rate."""
    metrics = [metric for metric, limit in limits(found.slo).items() if limit is not None]
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for title in ("offered/s", "answered/s", "good/s", *(f"{NAMES[metric]} ms" for metric in metrics), "errors"):
        table.add_column(title, justify="right")
    table.add_column(f"SLO at p{100 * found.slo.quantile:g}")
    for point in found.points:
        table.add_row(*_cells(point, metrics), _judged(point))
    return table


def _cells(point: Point, metrics: Sequence[Metric]) -> list[str]:
    stage, quantiles = point.stage, point.quantiles_ms
    rates = (stage.offered_rate, stage.throughput, stage.goodput)
    latencies = (figure(quantiles[metric]) if metric in quantiles else "–" for metric in metrics)
    return [*map(figure, rates), *latencies, f"{point.error_share:.2%}"]


def _judged(point: Point) -> Text:
    names = {str(metric): name for metric, name in NAMES.items()}
    missed = ", ".join(names.get(limit, limit) for limit, met in point.met.items() if not met)
    return Text(f"misses {missed}", "red") if missed else Text("met", "green")


def conclusion(found: Sweep) -> Text:
    workers = "1 worker" if found.workers == 1 else f"{found.workers} workers"
    where = f", with {workers}; a closed loop saturates at {figure(found.saturation)} requests/s."
    if found.best_rate is None:
        return Text(f"Even the lowest rate missed the SLO{where}", "red")
    best = f"{figure(found.best_rate)} requests/s"
    return Text.assemble("The highest rate that meets the SLO is ", (best, "bold green"), where)
