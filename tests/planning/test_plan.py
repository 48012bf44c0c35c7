import asyncio
import math
from functools import partial
from typing import Any

import pytest

from millrace.load.result import encode, histogram
from millrace.load.scenario import Slo, make_scenario
from millrace.load.sweeping.points import Point, Sweep, judge
from millrace.load.sweeping.sweep import sweep
from millrace.planning.measured import fastest, worker_of
from millrace.planning.need import Need
from millrace.planning.plan import Plan
from millrace.planning.plan import plan as make_plan
from tests.planning.served import Served, ignore

plan = partial(make_plan, jobs=30_000)


def swept(served: Served, **changes: Any) -> Sweep:
    given = {"model": "stub", "arrivals": {"poisson": 1}, "seconds": 120, "slo": {"ttft_ms": 300}}
    return asyncio.run(sweep(make_scenario(given | changes), run=served.run, look=served.look))


@pytest.fixture(scope="module")
def found() -> Sweep:
    """Of two workers of four slots, which bear 20 requests a second each."""
    return swept(Served())


@pytest.fixture(scope="module")
def planned(found: Sweep) -> Plan:
    """For 60 requests a second, which three workers would do nothing but serve."""
    return plan(found, 60)


def meets(found: Sweep, workers: int, rate: float) -> bool:
    """Whether the service itself, with as many workers, meets the sweep's SLO."""
    scenario = found.scenario.model_copy(
        update={"arrivals": make_scenario({"model": "stub", "arrivals": {"poisson": rate}}).arrivals, "seconds": 600.0}
    )
    result = asyncio.run(Served(workers=workers).run(scenario, ignore))
    return judge(result, found.slo, found.service.e2e.mean_s).meets


@pytest.mark.parametrize("rate", [15.0, 60.0, 200.0])
def test_the_planned_fleet_meets_the_slo_and_a_smaller_one_does_not(found: Sweep, rate: float) -> None:
    planned = plan(found, rate, spare=0)
    assert meets(found, planned.workers, rate)
    assert planned.workers == 1 or not meets(found, planned.workers - 1, rate)


def test_a_worker_is_as_it_was_measured(found: Sweep) -> None:
    worker = worker_of(found)
    assert worker.slots == 4
    assert worker.capacity == pytest.approx(20, rel=0.05)
    assert worker.speeds == pytest.approx([5, 10, 15, 20], rel=0.1)
    assert worker.scv == pytest.approx(0.25, rel=0.2)


def test_the_model_allows_the_measured_fleet_what_was_measured(planned: Plan) -> None:
    assert planned.model_rate == pytest.approx(planned.measured_rate, rel=0.1)
    assert not planned.notes


def test_a_large_fleet_is_used_better_than_a_small_one(found: Sweep) -> None:
    small, large = (plan(found, rate, slo=Slo(ttft_ms=60)).rows[1] for rate in (30, 10_000))
    assert small.utilisation is not None
    assert large.utilisation is not None
    assert small.utilisation < 0.7
    assert large.utilisation > 0.9


def test_spare_workers_are_added(found: Sweep, planned: Plan) -> None:
    assert planned.spare == 1
    assert plan(found, 60, spare=3).workers == planned.workers + 2


def test_the_rows_are_of_half_to_twice_the_rate(planned: Plan) -> None:
    rows = planned.rows
    assert [row.rate for row in rows] == [30, 60, 90, 120]
    assert [row.workers for row in rows] == sorted(row.workers or 0 for row in rows)
    assert all(row.wait_ms is not None and row.latencies_ms["ttft"] <= 300 for row in rows)


def test_the_simulation_stands_beside_the_model_for_the_fleet_and_one_that_is_smaller(planned: Plan) -> None:
    enough, fewer = planned.checks
    assert (enough.workers, fewer.workers) == (planned.workers - 1, planned.workers - 2)
    assert (enough.meets, fewer.meets) == (True, False)
    assert enough.error is not None
    assert abs(enough.error) < 0.15


def test_a_fleet_that_cannot_bear_the_rate_has_no_latency(found: Sweep) -> None:
    fewer = plan(found, 45).checks[-1]
    assert (fewer.workers, fewer.meets, fewer.model_ms, fewer.error) == (2, False, None, None)


def test_where_the_simulation_misses_the_slo_the_fleet_grows() -> None:
    """Service times of long tails: the model takes waits to be shorter than they are."""
    found = swept(Served(workers=1, slots=1, mean_s=0.02, scv=4), slo={"e2e_ms": 10_000}, seconds=400)
    free = Need(found, Slo(e2e_ms=1e9), 0.95)
    rate = 0.7 * free.worker.capacity
    model_s = free.latencies_s(1, rate)["e2e"]
    planned = plan(found, rate, slo=Slo(e2e_ms=1010 * model_s), spare=0)
    assert (planned.raised_from, planned.workers) == (1, 2)
    assert [(check.workers, check.meets) for check in planned.checks] == [(2, True), (1, False)]


def test_what_bounds_the_fleet_is_said(found: Sweep) -> None:
    assert plan(found, 4000).bound_by == "utilisation"
    assert plan(found, 30, slo=Slo(ttft_ms=60)).bound_by == "ttft"
    assert plan(found, 1).bound_by is None


def test_another_slo_takes_the_sweeps_place(found: Sweep, planned: Plan) -> None:
    strict = plan(found, 60, slo=Slo(ttft_ms=60, e2e_ms=1200))
    assert strict.workers > planned.workers
    assert {check.metric for check in strict.checks} == {"ttft", "e2e"}


@pytest.mark.parametrize("rate", [0.0, -1.0, math.inf, math.nan])
def test_a_rate_that_is_none_is_refused(found: Sweep, rate: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        plan(found, rate)


def test_a_sweep_that_met_its_slo_at_no_rate_says_so() -> None:
    missed = swept(Served(), slo={"e2e_ms": 10}, seconds=20)
    with pytest.raises(ValueError, match=r"even the lowest rate, .* with 2 workers, missed the SLO"):
        plan(missed, 10)
    assert plan(missed, 10, slo=Slo(e2e_ms=2000)).model_rate is None


def test_a_limit_below_what_a_request_takes_is_refused(found: Sweep) -> None:
    with pytest.raises(ValueError, match=r"e2e is .* where nothing waits, .* more workers do not help"):
        plan(found, 10, slo=Slo(e2e_ms=100))


def test_more_workers_than_there_may_be_are_refused(found: Sweep) -> None:
    with pytest.raises(ValueError, match="more than 10 workers, 1 of them spare: by this sweep so many bear 1"):
        plan(found, 400, most=10)


def test_a_rate_in_the_table_that_takes_too_many_has_none(found: Sweep) -> None:
    assert [row.workers is None for row in plan(found, 100, most=8).rows] == [False, False, True, True]


def test_what_one_redis_bears_is_warned_of(found: Sweep) -> None:
    assert not plan(found, 10, redis_rate=10).notes
    assert "one was measured to bear 5.00 requests/s" in plan(found, 10, redis_rate=5).notes[0]


def test_a_fleet_far_beyond_the_measured_one_is_warned_of(found: Sweep) -> None:
    assert any("2 workers were measured and" in note for note in plan(found, 2000).notes)


def slowing(point: Point, tpot_ms: float) -> Point:
    held = histogram()
    held.record_value(round(1000 * tpot_ms))
    stage = point.stage.model_copy(update={"histograms": {**point.stage.histograms, "tpot": encode(held)}})
    return point.model_copy(update={"stage": stage})


def test_tpot_bounds_the_load_of_each_worker(found: Sweep) -> None:
    points = [slowing(point, 10 * place) for place, point in enumerate(found.points, 1)]
    slower = found.model_copy(update={"points": points})
    kept = points[1].stage.offered_rate / 2
    assert fastest(slower, 0.99, 25) == kept
    assert math.isinf(fastest(slower, 0.99, None))
    planned = plan(slower, 100, slo=Slo(ttft_ms=1000, tpot_ms=25), spare=0)
    assert planned.workers == math.ceil(100 / kept)
    assert planned.bound_by == "tpot"
    with pytest.raises(ValueError, match="TPOT is above 5 ms at the lowest rate"):
        plan(slower, 100, slo=Slo(tpot_ms=5))


def test_an_slo_that_no_queue_breaks_is_bound_by_utilisation(found: Sweep) -> None:
    planned = plan(found, 60, slo=Slo(tpot_ms=1000), spare=0)
    assert (planned.workers, planned.bound_by) == (4, "utilisation")
    assert {check.metric for check in planned.checks} == {"e2e"}
