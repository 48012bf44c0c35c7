"""Latency: what the way adds to one call at a time, and what a call takes under an open load."""

from dataclasses import replace
from typing import Any

from bench.children import measure_bare, measure_load
from bench.fleet import serving
from bench.load import Measured
from bench.models.repository import BATCHING
from bench.report import Comparison, Figure, Part
from bench.run import Prepared, Run, median, percentile
from bench.workloads import MINILM_32, Workload, make_feed

NAME = "latency"
ECHO = Workload(name="echo, 16 numbers", model="echo", size=16)
AIM_ADDED_MS = 1.2
PACE_S = 0.002
"""About what a call takes beside the model: the pause between the runs of a model that is called one at a time."""
JUDGED_LOAD, AIM_P50_MS, AIM_P99_MS = 0.7, 17.0, 38.0
PEERS_AT_JUDGED_LOAD = (("MLServer", "17", "38"), ("Triton", "22", "48"), ("mosec", "23", "47"))
SATURATING_CALLERS = 64


async def run(run: Run) -> Part:
    data: dict[str, Any] = {}
    figures: list[Figure] = []
    for workload, aim in ((MINILM_32, AIM_ADDED_MS), (ECHO, None)):
        prepared = run.prepare(workload, make_feed(workload, seed=run.settings.seed))
        async with serving(prepared.models, run.settings.cores) as fleet:
            rounds = [await _alone(run, workload, prepared, fleet.address) for _ in range(run.settings.rounds)]
            data[workload.name] = rounds
            figures += _added(workload, rounds, aim)
            if workload is MINILM_32:
                data["open_loop"] = await _open_loop(run, prepared, fleet.address)
    figures += _judged(data["open_loop"])
    return Part(
        name=NAME,
        title="Latency: one call at a time, and an open loop (Poisson; from when a request was due)",
        figures=tuple(figures),
        notes=tuple(_lines(data["open_loop"])),
        comparison=Comparison(
            title="At 0.7 of the saturation: the others' as measured earlier on such a machine, not in this run",
            columns=("", "p50 ms", "p99 ms"),
            rows=PEERS_AT_JUDGED_LOAD,
        ),
        data=data,
    )


async def _alone(run: Run, workload: Workload, prepared: Prepared, address: str) -> dict[str, float]:
    """One round: the bare run as the worker runs it, then one caller."""
    settings = run.settings
    threads = max(settings.cores // BATCHING[workload.model]["sessions"], 1)
    bare = prepared.bare(threads=threads, spinning=False, rows=(1,), seconds=settings.bare_s)
    runs = (await measure_bare(bare)).runs_ms[1]
    paced = (await measure_bare(replace(bare, pause_s=PACE_S))).runs_ms[1]
    load = prepared.load(address, settings, callers=1, channels=1)
    latencies = (await measure_load(load)).latencies_ms
    entry = {
        "bare_p50_ms": percentile(runs, 50),
        "bare_p99_ms": percentile(runs, 99),
        "p50_ms": percentile(latencies, 50),
        "p99_ms": percentile(latencies, 99),
    }
    entry["added_to_paced_p50_ms"] = entry["p50_ms"] - percentile(paced, 50)
    entry["added_p50_ms"] = entry["p50_ms"] - entry["bare_p50_ms"]
    entry["added_p99_ms"] = entry["p99_ms"] - entry["bare_p99_ms"]
    run.say(NAME, f"{workload.name}, alone", f"{entry['p50_ms']:.2f} ms, of which the model {entry['bare_p50_ms']:.2f}")
    return entry


async def _open_loop(run: Run, prepared: Prepared, address: str) -> list[dict[str, float]]:
    settings = run.settings
    saturation = run.saturations.get(MINILM_32.name) or (await _saturate(run, prepared, address)).rate
    points = []
    for share in settings.loads:
        load = prepared.load(address, settings, rate=share * saturation, seconds=settings.open_s, seed=settings.seed)
        measured = await measure_load(load)
        point = {
            "load": share,
            "offered": load.rate,
            "throughput": measured.rate,
            "p50_ms": percentile(measured.latencies_ms, 50),
            "p99_ms": percentile(measured.latencies_ms, 99),
            "late_share": measured.late_share,
        }
        run.say(NAME, f"open loop at {share:.1f}", f"{point['p50_ms']:.1f} ms p50, {point['p99_ms']:.1f} ms p99")
        points.append(point)
    return points


async def _saturate(run: Run, prepared: Prepared, address: str) -> Measured:
    load = prepared.load(address, run.settings, callers=SATURATING_CALLERS, seconds=run.settings.saturate_s)
    measured = await measure_load(load)
    run.say(NAME, f"saturation, {SATURATING_CALLERS} callers", f"{measured.rate:.1f} rows/s")
    return measured


def _added(workload: Workload, rounds: list[dict[str, float]], aim: float | None) -> list[Figure]:
    middle = {name: median([entry[name] for entry in rounds]) for name in rounds[0]}
    whole = [
        Figure(
            name=f"{workload.name}: {which}", value=middle[f"{which}_ms"], bare=middle[f"bare_{which}_ms"], unit="ms"
        )
        for which in ("p50", "p99")
    ]
    added = Figure(name=f"{workload.name}: added, p50", value=middle["added_p50_ms"], unit="ms", aim=aim, better="less")
    paced = Figure(
        name=f"{workload.name}: added to runs {1000 * PACE_S:g} ms apart, p50",
        value=middle["added_to_paced_p50_ms"],
        unit="ms",
    )
    return [*whole, added, paced]


def _judged(points: list[dict[str, float]]) -> list[Figure]:
    aims = {"p50": AIM_P50_MS, "p99": AIM_P99_MS}
    return [
        Figure(
            name=f"at {JUDGED_LOAD} of the saturation: {name}",
            value=point[f"{name}_ms"],
            unit="ms",
            aim=aim,
            better="less",
        )
        for point in points
        if point["load"] == JUDGED_LOAD
        for name, aim in aims.items()
    ]


def _lines(points: list[dict[str, float]]) -> list[str]:
    return [
        f"open loop at {point['load']:.1f}: offered {point['offered']:.0f}, answered {point['throughput']:.0f} rows/s, "
        f"p50 {point['p50_ms']:.1f} ms, p99 {point['p99_ms']:.1f} ms; {point['late_share']:.1%} sent over 1 ms late"
        for point in points
    ]
