"""`millrace plan`: how many workers a rate needs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from millrace.cli.calls import errors
from millrace.load.scenario import SLOS, Slo
from millrace.load.sweeping.points import limits, read_sweep
from millrace.load.words import figure
from millrace.planning.need import Check, Row
from millrace.planning.plan import MOST_UTILISATION, MOST_WORKERS, Plan
from millrace.planning.plan import plan as make_plan

NAMES = {"ttft": "TTFT", "e2e": "end to end", "tpot": "TPOT"}
WRONG = 2


def plan(
    sweep: Annotated[Path, typer.Argument(metavar="SWEEP.json", help="What `millrace load sweep` wrote.")],
    rate: Annotated[float, typer.Option("--rate", help="Requests a second that are to be borne.")],
    slo: Annotated[
        str | None,
        typer.Option(metavar="NAME|LIMITS", help="interactive, server, or ttft_ms=500,e2e_ms=…; unset: the sweep's."),
    ] = None,
    spare: Annotated[int, typer.Option(min=0, help="Workers that may be lost at a time.")] = 1,
    most: Annotated[int, typer.Option("--max", min=1, help="Workers, at most.")] = MOST_WORKERS,
    utilisation: Annotated[
        float, typer.Option(min=0.01, max=0.99, help="The share of their measured capacity that may be planned on.")
    ] = MOST_UTILISATION,
    redis_rate: Annotated[
        float | None, typer.Option(help="Requests a second that one Redis was measured to bear; beyond it: a warning.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Say how many workers a rate needs to keep the SLO, from a sweep of a small fleet.

    A queueing model, checked against a simulation of the scheduler; the error between the two is printed.

    It is true of one model and one class of jobs, on workers like those of the sweep, asked at random (Poisson) for
    what the sweep asked for. Redis, frontends and the network are taken not to be the limit.

    [bold]millrace load sweep -m pycode --max-tokens 64 --slo interactive[/bold]
    [bold]millrace plan SWEEP.json --rate 400[/bold]
    """
    try:
        found = make_plan(
            read_sweep(sweep),
            rate,
            slo=None if slo is None else read_slo(slo),
            spare=spare,
            most=most,
            most_utilisation=utilisation,
            redis_rate=redis_rate,
        )
    except (ValueError, OSError) as error:
        errors.print(f"millrace: {error}", markup=False, soft_wrap=True)
        raise typer.Exit(WRONG) from None
    if as_json:
        typer.echo(found.model_dump_json(by_alias=True, indent=2))
    else:
        _show(found)


def read_slo(text: str) -> Slo:
    """A preset's name, or LIMIT=VALUE with commas between them. Raises ValueError with a sentence."""
    if "=" not in text:
        if text not in SLOS:
            raise ValueError(f"--slo {text} is not one of {', '.join(SLOS)}; or give its limits, as ttft_ms=500")
        return SLOS[text]
    try:
        return Slo.model_validate(
            {name.strip(): value for name, _, value in (part.partition("=") for part in text.split(","))}
        )
    except ValidationError as error:
        problems = (f"--slo {'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise ValueError("; ".join(problems)) from error


def _show(found: Plan) -> None:
    console = Console(highlight=False)
    console.print(_table(found))
    for sentence in _sentences(found):
        console.print(sentence, soft_wrap=True)
    for note in found.notes:
        console.print(f"[yellow]{escape(note)}[/yellow]", soft_wrap=True)


def _table(found: Plan) -> Table:
    metrics = [metric for metric, limit in limits(found.slo).items() if limit is not None and metric != "tpot"]
    at = f"p{100 * found.slo.quantile:g}"
    titles = [
        "requests/s",
        "workers",
        "with spare",
        "utilisation",
        f"{at} wait",
        *(f"{at} {NAMES[m]}" for m in metrics),
    ]
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for title in titles:
        table.add_column(title, justify="right")
    for row in found.rows:
        values = (row.latencies_ms.get(metric) for metric in metrics)
        style = "bold" if row.rate == found.rate else None
        table.add_row(*_cells(row, found.spare), *("–" if v is None else f"{v:.0f} ms" for v in values), style=style)
    return table


def _cells(row: Row, spare: int) -> list[str]:
    if row.workers is None or row.utilisation is None or row.wait_ms is None:
        return [figure(row.rate), "too many", "–", "–", "–"]
    counts = (f"{row.workers:,}", f"{row.workers + spare:,}")
    return [figure(row.rate), *counts, f"{row.utilisation:.0%}", f"{row.wait_ms:.0f} ms"]


def _sentences(found: Plan) -> Iterator[str]:
    spare = f", {found.spare} of them spare" if found.spare else ""
    noun = "worker" if found.workers == 1 else "workers"
    yield f"{figure(found.rate)} requests/s take [bold green]{found.workers:,} {noun}[/]{spare}."
    if found.raised_from is not None:
        yield f"The model alone takes {found.raised_from:,}; the simulation misses the SLO with as many."
    at = f"p{100 * found.slo.quantile:g}"
    for check in found.checks:
        yield f"With {check.workers:,}, {at} {NAMES[check.metric]}: {_compared(check)}"
    if found.bound_by == "utilisation":
        yield "Not the SLO but the utilisation is what keeps a smaller fleet from being enough."
    elif found.bound_by == "tpot":
        yield "TPOT, as measured at the load of each worker, is what keeps a smaller fleet from being enough."
    if found.measured_rate is not None and found.model_rate is not None:
        yield (
            f"The model allows the sweep's own fleet {figure(found.model_rate)} requests/s; "
            f"{figure(found.measured_rate)} were measured."
        )


def _compared(check: Check) -> str:
    """As "model 212 ms, simulation 205 ± 3 ms: 3 %; meets the SLO"."""
    if check.model_ms is None or check.simulation_ms is None or check.error is None:
        return "the queue grows without end."
    verdict = "meets the SLO" if check.meets else "misses the SLO"
    simulated = f"{check.simulation_ms:.0f} ± {check.uncertainty_ms:.0f} ms"
    return f"model {check.model_ms:.0f} ms, simulation {simulated}: {abs(check.error):.0%}; {verdict}."
