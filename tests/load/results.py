"""Makes results that look like a run's, without one: requests are drawn, ended and counted as a generator would."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import numpy as np

from millrace.load.result import (
    METRICS,
    Generator,
    Interval,
    Metric,
    Result,
    ServerSample,
    Stage,
    Verification,
    encode,
    histogram,
)
from millrace.load.scenario import Scenario, Slo, make_scenario
from millrace.load.sweeping.knee import knee
from millrace.load.sweeping.points import Sweep, judge, service

CAPACITY = 60.0
"""Requests a second that the service which is drawn here answers at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    due_s: float
    end_s: float
    code: str
    reason: str
    tokens: int
    good: bool
    latencies_ms: dict[Metric, list[float]]


def make_result(
    *, seed: int = 0, slower: float = 1.0, errors: float = 0.0, server: bool = True, **changes: Any
) -> Result:
    """`slower` multiplies all latencies, `errors` is the share that is refused; `extra` fields of Result and settings
    of the scenario are taken by name."""
    fields = {name: changes.pop(name) for name in list(changes) if name in Result.model_fields}
    given = {
        "model": "pycode",
        "arrivals": {"poisson": 20},
        "seconds": 60,
        "warmup_s": 5,
        "slo": {"ttft_ms": 500, "tpot_ms": 30},
    }
    scenario = make_scenario(given | changes)
    rng = np.random.default_rng(seed)
    calls = list(_calls(scenario, rng, slower, errors))
    stages = [
        _stage(calls, begin, end, rate, scenario.arrivals.callers) for begin, end, rate in _stretches(scenario)[1:]
    ]
    result = Result.model_validate(
        {
            "schema": "millrace.load/1",
            "scenario": scenario,
            "started_at": "2026-01-02T03:04:05Z",
            "task": "generate",
            "versions": {"millrace": "0.1.0", "python": "3.11.9"},
            "hardware": {"cpu": "AMD EPYC 7763", "cores": 2, "memory_gib": 8.0},
            "intervals": list(_intervals(scenario, calls)),
            "stages": stages,
            "total": _stage(calls, 0.0, scenario.seconds, _mean_rate(scenario), scenario.arrivals.callers),
            "server": list(_samples(scenario, calls)) if server else [],
            "generators": [Generator(cpu_share=0.31, late_p99_ms=0.8, sent=len(calls))],
            "verification": Verification(streams=len(calls), deltas=64 * len(calls)) if scenario.verify else None,
        }
    )
    return result.model_copy(update=fields)


def make_sweep(rates: Sequence[float] = (15, 25, 35, 45, 52, 58, 64, 72, 80), **fields: Any) -> Sweep:
    """A run of 10 s at each rate, and closed loops; any field of Sweep may be given."""
    slo = Slo(ttft_ms=500, tpot_ms=30)
    points = [
        judge(make_result(seed=place, seconds=10, arrivals={"poisson": rate}), slo, 0.5)
        for place, rate in enumerate(rates)
    ]
    closed = [
        judge(make_result(seconds=10, arrivals={"callers": callers}), slo, 0.5) for callers in (1, 4, 8, 16, 32, 64)
    ]
    last = make_result(name="sweep")
    met = [point.stage.offered_rate for point in takewhile(lambda point: point.meets, points)]
    sweep = Sweep(
        schema="millrace.sweep/1",
        scenario=last.scenario,
        slo=slo,
        started_at=last.started_at,
        task=last.task,
        closed=closed,
        points=points,
        saturation=max(point.stage.throughput for point in closed),
        slots=32,
        knee=knee([(point.stage.offered_rate, point.stage.throughput) for point in points]),
        best_rate=max(met, default=None),
        workers=2,
        service=service(closed[0].stage),
        hardware=last.hardware,
        versions=last.versions,
    )
    return sweep.model_copy(update=fields)


def _stretches(scenario: Scenario) -> list[tuple[float, float, float | None]]:
    """Begin, end and rate, the warm-up before them."""
    arrivals = scenario.arrivals
    rates: Sequence[float | None]
    rates = [*arrivals.steps.rates] if arrivals.steps else [arrivals.poisson or arrivals.constant]
    bounds = np.linspace(0, scenario.seconds, len(rates) + 1).tolist()
    return [(-scenario.warmup_s, 0.0, rates[0]), *zip(bounds, bounds[1:], rates, strict=False)]


def _mean_rate(scenario: Scenario) -> float | None:
    return None if scenario.arrivals.callers else _stretches(scenario)[1][2]


def _calls(scenario: Scenario, rng: np.random.Generator, slower: float, errors: float) -> Iterable[Call]:
    free = -scenario.warmup_s
    for begin, end, rate in _stretches(scenario):
        offered = rate or 2.0 * (scenario.arrivals.callers or 1)
        for due in np.sort(rng.uniform(begin, end, rng.poisson(offered * (end - begin)))).tolist():
            wait = max(free - due, 0.0)
            call = _call(scenario, rng, due, slower * (1 + min(offered / CAPACITY, 1.0)), 1000 * wait, errors)
            free = max(free, due) + (1 / CAPACITY if call.tokens else 0.0)
            yield call


def _call(
    scenario: Scenario, rng: np.random.Generator, due: float, slower: float, wait_ms: float, errors: float
) -> Call:
    refused = rng.random() < errors or wait_ms > 4000
    if refused:
        code, reason = ("RESOURCE_EXHAUSTED", "QUEUE_FULL") if rng.random() < 0.8 else ("UNAVAILABLE", "NO_WORKER")
        return Call(due_s=due, end_s=due + 0.005, code=code, reason=reason, tokens=0, good=False, latencies_ms={})
    tokens = int(rng.integers(16, 96))
    ttft = wait_ms + slower * float(rng.lognormal(np.log(45), 0.45))
    tpot = slower * float(rng.lognormal(np.log(7), 0.18))
    e2e = ttft + tpot * (tokens - 1)
    gaps = (tpot * rng.lognormal(-0.06, 0.35, 3)).tolist()
    slo = scenario.slo
    good = slo is None or (ttft <= (slo.ttft_ms or 1e9) and tpot <= (slo.tpot_ms or 1e9))
    latencies: dict[Metric, list[float]] = {
        "e2e": [e2e],
        "ttft": [ttft],
        "tpot": [tpot],
        "itl": gaps,
        "late": [float(rng.exponential(0.2))],
    }
    return Call(
        due_s=due, end_s=due + e2e / 1000, code="OK", reason="", tokens=tokens, good=good, latencies_ms=latencies
    )


def _counted(ended: Sequence[Call], due: int, measured: Sequence[Call]) -> dict[str, Any]:
    return {
        "due": due,
        "ended": dict(Counter(call.code for call in ended)),
        "reasons": dict(Counter(call.reason for call in ended if call.reason)),
        "good": sum(call.good for call in ended),
        "tokens": sum(call.tokens for call in ended),
        "histograms": _histograms(measured),
    }


def _histograms(calls: Sequence[Call]) -> dict[Metric, str]:
    held = {metric: histogram() for metric in METRICS if any(metric in call.latencies_ms for call in calls)}
    for call in calls:
        for metric, latencies in call.latencies_ms.items():
            for latency in latencies:
                held[metric].record_value(max(1, round(1000 * latency)))
    return {metric: encode(one) for metric, one in held.items()}


def _intervals(scenario: Scenario, calls: Sequence[Call]) -> Iterable[Interval]:
    last = max([scenario.seconds, *(call.end_s for call in calls)])
    due = np.array([call.due_s for call in calls])
    end = np.array([call.end_s for call in calls])
    for at in np.arange(-scenario.warmup_s, last, 1.0).tolist():
        ended = [calls[place] for place in np.flatnonzero((end >= at) & (end < at + 1)).tolist()]
        measured = [call for call in ended if call.due_s >= 0]
        counts = _counted(ended, int(np.sum((due >= at) & (due < at + 1))), measured)
        in_flight = int(np.sum((due < at + 1) & (end >= at + 1)))
        yield Interval(at_s=at, seconds=1.0, in_flight=in_flight, **counts)


def _stage(calls: Sequence[Call], begin: float, end: float, rate: float | None, callers: int | None) -> Stage:
    mine = [call for call in calls if begin <= call.due_s < end]
    answered = sum(call.code == "OK" and begin <= call.end_s < end for call in calls)
    return Stage(
        begin_s=begin,
        end_s=end,
        rate=rate,
        callers=callers,
        answered=answered,
        **_counted(mine, len(mine), mine),
    )


def _samples(scenario: Scenario, calls: Sequence[Call]) -> Iterable[ServerSample]:
    due = np.array([call.due_s for call in calls])
    end = np.array([call.end_s for call in calls])
    runs = rows = 0.0
    for at in np.arange(-scenario.warmup_s, scenario.seconds, 1.0).tolist():
        under_way = float(np.sum((due < at) & (end >= at)))
        running = min(under_way, 32.0)
        runs, rows = runs + 120, rows + 120 * max(running, 1)
        yield ServerSample(
            at_s=at, waiting_jobs=under_way - running, running_jobs=running, ready_workers=2, runs=runs, rows=rows
        )
