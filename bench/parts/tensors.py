"""Throughput of tensors: rows a second at saturation, one row a request, beside the bare runtime's best."""

from dataclasses import replace
from typing import Any

import numpy as np

from bench import blobs
from bench.children import measure_bare, measure_load
from bench.fleet import Serving, serving
from bench.models.repository import BATCHING
from bench.report import Comparison, Figure, Part
from bench.run import Prepared, Run, median
from bench.workloads import TENSORS, Workload, check_answers, make_feed

NAME = "tensors"
KEPT = 3
"""How many of the sizes of a run that were best in the first round the later ones measure; of the callers one less."""


async def run(run: Run) -> Part:
    """Raises ValueError where an answer is not the bare runtime's."""
    figures, data, notes = [], dict[str, Any](), list[str]()
    for workload in TENSORS:
        rounds = await _measure(run, workload)
        best = [entry["service"] for entry in rounds]
        run.saturations[workload.name] = median(best)
        figures.append(
            Figure(
                name=workload.name,
                value=median(best),
                unit="rows/s",
                bare=median([entry["bare"] for entry in rounds]),
                ratios=tuple(entry["service"] / entry["bare"] for entry in rounds),
                aim=workload.aim,
            )
        )
        data[workload.name] = rounds
        notes.append(_note(workload, rounds))
    return Part(
        name=NAME,
        title="Tensors: rows a second at saturation, one row a request",
        figures=tuple(figures),
        notes=tuple(notes),
        comparison=_compare(figures),
        data=data,
    )


async def _measure(run: Run, workload: Workload) -> list[dict[str, Any]]:
    """Each round: bare, then through the service."""
    settings, prepared = run.settings, run.prepare(workload, make_feed(workload, seed=run.settings.seed))
    sizes, callers, rounds = settings.bare_rows, settings.callers, list[dict[str, Any]]()
    await _expect(run, prepared)
    async with serving(prepared.models, settings.cores) as fleet:
        for number in range(settings.rounds):
            entry = await _bare(run, workload, prepared, sizes)
            entry |= await _service(run, workload, prepared, fleet, callers)
            check_answers(blobs.read(prepared.answers), np.load(prepared.outputs))
            sizes, callers = _best(entry["bare_rates"], KEPT), _best(entry["rates"], KEPT - 1)
            run.say(NAME, f"{workload.name}, round {number + 1}", f"ratio {entry['service'] / entry['bare']:.3f}")
            rounds.append(entry)
    return rounds


async def _expect(run: Run, prepared: Prepared) -> None:
    """What the bare runtime gives for each row."""
    await measure_bare(prepared.bare(threads=run.settings.cores, rows=(), seconds=0, outputs=str(prepared.outputs)))


async def _bare(run: Run, workload: Workload, prepared: Prepared, sizes: tuple[int, ...]) -> dict[str, Any]:
    settings, batching = run.settings, BATCHING[workload.model]
    bare = prepared.bare(threads=settings.cores, rows=sizes, seconds=settings.bare_s)
    rates = (await measure_bare(bare)).rates
    best = max(rates, key=rates.__getitem__)
    sessions, threads = batching["sessions"], max(settings.cores // batching["sessions"], 1)
    alike = replace(bare, sessions=sessions, threads=threads, spinning=False, rows=(batching["max_rows"],))
    (as_served,) = (await measure_bare(alike)).rates.values()
    run.say(NAME, f"{workload.name}, bare", f"{rates[best]:.1f} rows/s ({best} a run); as served {as_served:.1f}")
    return {"bare": rates[best], "bare_rows": best, "bare_rates": rates, "bare_as_served": as_served}


async def _service(
    run: Run, workload: Workload, prepared: Prepared, fleet: Serving, callers: tuple[int, ...]
) -> dict[str, Any]:
    rates, cpu = dict[int, float](), dict[int, dict[str, float]]()
    for count in callers:
        load = prepared.load(fleet.address, run.settings, callers=count, seconds=run.settings.saturate_s)
        before = fleet.cpu_s()
        measured = await measure_load(load)
        used = fleet.cpu_since(before) | {"client": measured.cpu_s}
        rates[count] = measured.rate
        cpu[count] = {name: 1000 * seconds / measured.sent for name, seconds in used.items()}
        run.say(NAME, f"{workload.name}, service, {count} callers", f"{measured.rate:.1f} rows/s")
    best = max(rates, key=rates.__getitem__)
    return {"service": rates[best], "callers": best, "rates": rates, "cpu_ms_per_row": cpu[best]}


def _best(rates: dict[int, float], count: int) -> tuple[int, ...]:
    return tuple(sorted(sorted(rates, key=rates.__getitem__)[-count:]))


def _note(workload: Workload, rounds: list[dict[str, Any]]) -> str:
    last = rounds[-1]
    cpu = ", ".join(f"{name} {milliseconds:.2f}" for name, milliseconds in last["cpu_ms_per_row"].items())
    as_served = median([entry["bare_as_served"] for entry in rounds])
    return (
        f"{workload.name}: best with {last['callers']} callers; bare best with {last['bare_rows']} rows a run, and "
        f"{as_served:.1f} rows/s with the worker's own sessions and batches; "
        f"CPU ms a row: {cpu}"
    )


def _compare(figures: list[Figure]) -> Comparison:
    names = list(TENSORS[0].peers)
    ours = ("Millrace, in this run", *(f"{figure.ratio:.2f}" for figure in figures))
    return Comparison(
        title="Shares of the bare runtime: the others' as measured earlier on such a machine, not in this run",
        columns=("", *(workload.name for workload in TENSORS)),
        rows=(ours, *((name, *(f"{workload.peers[name]:.2f}" for workload in TENSORS)) for name in names)),
    )
