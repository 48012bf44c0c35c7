import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from millrace import AsyncClient
from millrace.errors import Unavailable
from millrace.load.result import Interval, Result
from millrace.load.scenario import Scenario, Slo, make_scenario
from millrace.load.sweeping.points import judge
from millrace.load.sweeping.sweep import SHARES, Fleet, Sweep, Watch, look_at, read_sweep, sweep, write_sweep
from tests.frontend.playing import Worker, frontend
from tests.load.results import make_result
from tests.planning.served import Served, ignore


def scenario(**changes: Any) -> Scenario:
    given = {"model": "stub", "arrivals": {"poisson": 1}, "seconds": 20, "slo": {"ttft_ms": 300}}
    return make_scenario(given | changes)


async def swept(served: Served, **changes: Any) -> Sweep:
    return await sweep(scenario(**changes), run=served.run, look=served.look)


@pytest.fixture(scope="module")
def found() -> Sweep:
    return asyncio.run(swept(Served(), seconds=300))


def test_the_knee_and_the_saturation_are_the_capacity_of_the_service(found: Sweep) -> None:
    assert found.saturation == pytest.approx(Served().capacity, rel=0.05)
    assert found.knee == pytest.approx(found.saturation, rel=0.05)
    assert (found.workers, found.slots) == (2, 8)


async def test_the_best_rate_is_the_highest_that_meets_the_slo(found: Sweep) -> None:
    assert found.best_rate is not None

    async def meets(rate: float) -> bool:
        result = await Served().run(scenario(arrivals={"poisson": rate}, seconds=2000), ignore)
        return judge(result, found.slo, found.service.e2e.mean_s).meets

    assert await meets(0.95 * found.best_rate)
    assert not await meets(1.05 * found.best_rate)


def test_what_met_and_what_missed_are_near_each_other(found: Sweep) -> None:
    missed = min(point.stage.offered_rate for point in found.points if not point.meets)
    assert found.best_rate is not None
    assert found.best_rate < missed < 1.07 * found.best_rate


def test_points_are_in_order_and_say_what_was_missed(found: Sweep) -> None:
    rates = [point.stage.rate for point in found.points]
    assert rates == sorted(rates, key=lambda rate: rate or 0)
    assert found.points[0].met == {"ttft": True, "errors": True, "throughput": True}
    assert found.points[-1].met == {"ttft": False, "errors": True, "throughput": False}


def test_the_single_caller_says_what_a_request_takes(found: Sweep) -> None:
    service = found.service
    assert service.e2e.mean_s == pytest.approx(0.2, rel=0.05)
    assert service.e2e.scv == pytest.approx(0.25, rel=0.2)
    assert service.tokens == 21
    assert found.closed[0].stage.callers == 1


async def test_the_same_service_is_swept_the_same() -> None:
    assert [point.stage for point in (await swept(Served())).points] == [
        point.stage for point in (await swept(Served())).points
    ]


async def test_lower_rates_are_tried_where_the_lowest_misses() -> None:
    served = Served(workers=1, slots=1, scv=1.0)
    found = await swept(served, slo={"ttft_ms": 150, "quantile": 0.9}, seconds=300)
    assert found.best_rate is not None
    assert found.best_rate < SHARES[0] * found.saturation


async def test_where_no_request_is_fast_enough_there_is_no_best_rate() -> None:
    found = await swept(Served(), slo={"e2e_ms": 10})
    assert found.best_rate is None
    assert not any(point.meets for point in found.points)


async def test_a_rate_at_which_the_queue_grows_is_not_met_however_long_one_may_wait() -> None:
    found = await swept(Served(), slo={"e2e_ms": 600_000})
    assert found.best_rate == pytest.approx(found.saturation, rel=0.06)
    assert found.points[-1].met == {"e2e": True, "errors": True, "throughput": False}


async def test_warming_up_takes_as_long_as_two_requests() -> None:
    served = Served(mean_s=4, scv=0, workers=1, slots=2)
    await swept(served, slo={"e2e_ms": 60_000})
    assert served.asked[0].warmup_s == 5
    assert served.asked[-1].warmup_s == pytest.approx(8, rel=0.01)


async def test_a_few_requests_at_low_load_are_said_to_be_few() -> None:
    found = await swept(Served(mean_s=4, scv=0), slo={"e2e_ms": 60_000})
    assert any("rest on 5 requests" in note for note in found.notes)


async def test_the_remaining_time_is_said_at_the_begin_and_after_each_run() -> None:
    served, said = Served(), list[str]()
    await sweep(scenario(), run=served.run, look=served.look, say=said.append)
    assert said[0] == "2 workers; about 17 runs, 7 min"
    assert len(said) == 1 + len(served.asked)
    assert all("left" in sentence or "nearly done" in sentence for sentence in said[1:])


async def test_without_an_slo_there_is_nothing_to_look_for() -> None:
    with pytest.raises(ValueError, match="limits to meet"):
        await swept(Served(), slo=None)


async def test_a_caller_who_is_never_answered_ends_it() -> None:
    async def refuse(asked: Scenario, _: Watch) -> Result:
        return make_result(errors=1.0, seconds=5)

    with pytest.raises(ValueError, match="RESOURCE_EXHAUSTED"):
        await sweep(scenario(), run=refuse, look=Served().look)


@dataclass(slots=True)
class Busy:
    """A fleet that has jobs left at first."""

    served: Served = field(default_factory=Served)
    jobs: list[int] = field(default_factory=lambda: [3, 1])
    begun_at: list[int] = field(default_factory=list)
    """The jobs that were left when a run began."""

    async def look(self, _: Scenario) -> Fleet:
        return Fleet(workers=2, jobs=self.jobs.pop(0) if self.jobs else 0)

    async def run(self, asked: Scenario, watch: Watch) -> Result:
        self.begun_at.append(len(self.jobs))
        return await self.served.run(asked, watch)


async def test_a_run_begins_when_the_queue_is_empty() -> None:
    busy = Busy(jobs=[0, 3, 1])
    await sweep(scenario(seconds=5), run=busy.run, look=busy.look)
    assert busy.begun_at[0] == 0


async def test_workers_that_come_or_go_are_noted() -> None:
    served = Served()

    async def look(_: Scenario) -> Fleet:
        return Fleet(workers=2 if len(served.asked) < 5 else 1, jobs=0)

    found = await sweep(scenario(seconds=5), run=served.run, look=look)
    assert any("2 workers at the begin" in note for note in found.notes)


async def test_what_the_generator_says_of_itself_is_noted() -> None:
    async def run(asked: Scenario, watch: Watch) -> Result:
        return (await Served().run(asked, watch)).model_copy(update={"bottleneck": "its core is full"})

    found = await sweep(scenario(seconds=5), run=run, look=Served().look)
    assert found.points[0].bottleneck == "its core is full"
    assert found.notes[0] == "1 caller: its core is full"


def test_refusals_count_against_the_slo() -> None:
    point = judge(make_result(errors=0.05), Slo(e2e_ms=60_000), 0.1)
    assert point.error_share == pytest.approx(0.05, abs=0.02)
    assert not point.met["errors"]


def test_a_limit_on_what_a_request_does_not_have_is_met() -> None:
    whole = make_result()
    histograms = {metric: held for metric, held in whole.total.histograms.items() if metric != "tpot"}
    without = whole.model_copy(update={"total": whole.total.model_copy(update={"histograms": histograms})})
    assert judge(without, Slo(tpot_ms=0.001), 0.1).met["tpot"]
    assert not judge(whole, Slo(tpot_ms=0.001), 0.1).met["tpot"]


def test_a_sweep_is_read_as_it_was_written(found: Sweep, tmp_path: Path) -> None:
    write_sweep(found, tmp_path / "new" / "sweep.json")
    assert read_sweep(tmp_path / "new" / "sweep.json") == found


def test_a_file_that_is_no_sweep_is_refused(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(make_result(seconds=2).model_dump_json(by_alias=True))
    with pytest.raises(ValueError, match=r"not a sweep .* \(millrace.sweep/1\)"):
        read_sweep(tmp_path / "result.json")


def test_each_second_of_each_run_is_shown() -> None:
    shown = list[Interval]()

    async def run(asked: Scenario, watch: Watch) -> Result:
        watch(Interval(at_s=0, seconds=1, in_flight=1))
        return await served.run(asked, watch)

    served = Served()
    asyncio.run(sweep(scenario(seconds=5), run=run, watch=shown.append, look=served.look))
    assert len(shown) == len(served.asked)


def test_callers_in_step_do_not_change_the_closed_loops_throughput() -> None:
    """Eight answers come at once, at 0.75 s and each second from there: nine times in 9.2 s, ten times in 9.8 s."""
    served = Served(workers=1, slots=8, mean_s=1.0, scv=0)
    for seconds in (9.2, 9.8):
        result = asyncio.run(served.run(scenario(arrivals={"callers": 8}, seconds=seconds, warmup_s=0.25), ignore))
        point = judge(result, Slo(e2e_ms=60_000), 1.0)
        assert point.throughput == pytest.approx(8, rel=0.01)
        assert point.stage.throughput != pytest.approx(8, rel=0.01)


async def test_the_fleet_is_looked_at_through_a_frontend(redis_url: str) -> None:
    async with Worker(redis_url) as worker, frontend(redis_url) as served, AsyncClient(served.grpc_address) as client:
        asked = scenario(model="echo", address=served.grpc_address)
        assert await look_at(asked) == Fleet(workers=1, jobs=0)
        call = asyncio.ensure_future(client.generate_text("echo", "hello"))
        held = await worker.take()
        assert await look_at(asked) == Fleet(workers=1, jobs=1)
        await held.emit("word", last=True)
        await call
        await worker.announce("draining")
        with pytest.raises(Unavailable, match="no worker is ready for echo"):
            await look_at(asked)
