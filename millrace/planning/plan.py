"""From a sweep and a rate to a number of workers."""

import math
from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import Field

from millrace.load.scenario import Slo, Strict
from millrace.load.sweeping.points import Sweep
from millrace.load.words import figure
from millrace.planning.need import Check, Need, Row
from millrace.planning.simulation import JOBS

MOST_WORKERS = 1000
MOST_UTILISATION = 0.95
"""Of the measured capacity, which is known to a few percent."""
SHARES = (0.5, 1.0, 1.5, 2.0)
"""Of the target rate: what the table shows."""
TRIES = 20
"""By how often a fleet is enlarged, at most, because the simulation misses the SLO."""
DISAGREEING = 0.1
"""Where the model's highest rate for the measured fleet is further from the measured one, the plan says so."""
FAR = 20
"""Times as many workers as were measured: beyond it what they share was hardly loaded in the sweep."""


class Plan(Strict):
    schema_name: Literal["millrace.plan/1"] = Field(default="millrace.plan/1", alias="schema")
    rate: float
    slo: Slo
    workers: int = Field(description="that the rate needs, with the spare ones")
    spare: int = Field(description="workers of these that may be lost")
    capacity: float = Field(description="of one worker, requests a second")
    slots: int = Field(description="of one worker")
    rows: Sequence[Row]
    checks: Sequence[Check] = Field(description="of the fleet without the spare ones, and of one that is smaller by 1")
    bound_by: str | None = Field(
        description="why no fewer do, by the model: utilisation, tpot, ttft or e2e; None: one worker is enough"
    )
    raised_from: int | None = Field(default=None, description="what the model alone would have taken")
    measured_rate: float | None = Field(description="the highest that met the sweep's SLO in the sweep")
    model_rate: float | None = Field(description="the highest that meets it with as many workers by the model")
    notes: Sequence[str] = ()


def plan(
    sweep: Sweep,
    target_rate: float,
    *,
    slo: Slo | None = None,
    spare: int = 1,
    most: int = MOST_WORKERS,
    most_utilisation: float = MOST_UTILISATION,
    redis_rate: float | None = None,
    jobs: int = JOBS,
) -> Plan:
    """The fewest workers that bear `target_rate`, requests a second, within the SLO, and `spare` more.

    `slo`: in place of the sweep's. `redis_rate`: what one Redis was measured to bear, requests a second.
    `jobs`: that a simulation takes; fewer are faster, and less certain.

    Raises:
        ValueError: the rate is not above 0, no fleet meets the SLO, or it takes more than `most` workers.
    """
    _check(sweep, target_rate, slo)
    need = Need(sweep, slo or sweep.slo, most_utilisation, jobs)
    room = most - spare
    fewest = need.workers(target_rate, room)
    if fewest is None:
        raise ValueError(
            f"{figure(target_rate)} requests/s take more than {most} workers, {spare} of them spare: "
            f"by this sweep so many bear {figure(need.rate(room))}"
        )
    needed, checks = _confirm(need, target_rate, fewest, room)
    rows = [need.row(share * target_rate, need.workers(share * target_rate, room)) for share in SHARES if share != 1]
    rows.insert(SHARES.index(1.0), need.row(target_rate, needed))
    model_rate = None if sweep.best_rate is None else Need(sweep, sweep.slo, 1.0).rate(sweep.workers)
    return Plan(
        rate=target_rate,
        slo=need.slo,
        workers=needed + spare,
        spare=spare,
        capacity=need.worker.capacity,
        slots=need.worker.slots,
        rows=rows,
        checks=checks,
        bound_by=need.lacks(fewest - 1, target_rate) if fewest > 1 else None,
        raised_from=fewest if needed > fewest else None,
        measured_rate=sweep.best_rate,
        model_rate=model_rate,
        notes=[*_notes(sweep, target_rate, needed, model_rate, redis_rate)],
    )


def _check(sweep: Sweep, target_rate: float, slo: Slo | None) -> None:
    if not target_rate > 0 or math.isinf(target_rate):
        raise ValueError("the rate must be above 0 requests a second")
    if slo is None and sweep.best_rate is None:
        lowest = min(point.stage.offered_rate for point in sweep.points)
        raise ValueError(
            f"in the sweep even the lowest rate, {figure(lowest)} requests/s with {sweep.workers} workers, missed the "
            "SLO: sweep again with one that can be met, or give other limits"
        )


def _confirm(need: Need, rate: float, fewest: int, most: int) -> tuple[int, list[Check]]:
    """The fewest workers, from `fewest` on, with which the simulation meets the SLO too. Raises ValueError where it
    never does."""
    before = need.check(fewest - 1, rate) if fewest > 1 else []
    workers = fewest
    for _ in range(TRIES):
        checks = need.check(workers, rate)
        if all(check.meets for check in checks):
            return workers, [*checks, *before]
        workers, before = workers + max(workers // 100, 1), checks
        if workers > most:
            break
    raise ValueError(f"by the simulation {figure(rate)} requests/s miss the SLO with {before[0].workers} workers still")


def _notes(
    sweep: Sweep, rate: float, workers: int, model_rate: float | None, redis_rate: float | None
) -> Iterator[str]:
    if sweep.best_rate and model_rate is not None and abs(model_rate / sweep.best_rate - 1) > DISAGREEING:
        yield (
            f"For the {sweep.workers} workers of the sweep the model allows {figure(model_rate)} requests/s, where "
            f"{figure(sweep.best_rate)} were measured: take the plan as that uncertain."
        )
    if redis_rate is not None and rate > redis_rate:
        yield f"A model's jobs are in one Redis, and one was measured to bear {figure(redis_rate)} requests/s."
    if workers > FAR * sweep.workers:
        yield (
            f"{sweep.workers} workers were measured and {workers} are planned: what they share, Redis, frontends and "
            "network, is taken for free."
        )
    yield from sweep.notes
