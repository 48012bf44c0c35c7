"""Load tests of a real service whose steps take a known time."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from millrace.errors import MillraceError, NotFound, Unavailable
from millrace.load.result import Interval, Result, decode, quantile_ms, read_result, write_result
from millrace.load.run import orders, run
from millrace.load.scenario import Scenario, make_scenario
from tests.load.serving import SLOTS, STEP_S, Serving, serving
from tests.processes import free_port

TOKENS = 10


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving(tmp_path_factory.mktemp("models")) as running:
        yield running


def scenario(service: Serving, **settings: Any) -> Scenario:
    usual = {
        "address": service.grpc,
        "http": service.http,
        "model": "stub",
        "arrivals": {"poisson": 20},
        "requests": {"prompt_tokens": 5, "max_tokens": TOKENS},
        "seconds": 2.0,
        "warmup_s": 0.5,
    }
    return make_scenario(usual | settings)


def generators() -> list[psutil.Process]:
    children = psutil.Process().children()
    return [child for child in children if "millrace.load.generator" in child.cmdline()]


def median_ms(result: Result, metric: str) -> float:
    return quantile_ms(result.total.histograms[metric], 0.5) or 0.0  # type: ignore[index]


async def test_what_an_open_loop_counts_adds_up(service: Serving) -> None:
    seen: list[Interval] = []
    result = await run(scenario(service, generators=2, arrivals={"steps": {"rates": [10, 30]}}), seen.append)
    slow, fast = result.stages
    assert (slow.rate, fast.rate, fast.begin_s) == (10, 30, 1.0)
    assert 0 < slow.due < fast.due
    for stage in (slow, fast, result.total):
        assert stage.due == stage.all_ended == stage.ok == stage.good
        assert stage.tokens == TOKENS * stage.due
        assert stage.prompt_tokens == 5 * stage.due
        assert decode(stage.histograms["e2e"]).get_total_count() == stage.due
        assert decode(stage.histograms["itl"]).get_total_count() == (TOKENS - 1) * stage.due
    assert result.total.due == slow.due + fast.due == sum(one.due for one in seen if one.at_s >= 0)
    assert result.total.rate == result.total.due / 2
    assert result.intervals == seen
    assert [one.at_s for one in seen][:4] == [-0.5, 0.0, 1.0, 2.0]
    assert sum(generator.sent for generator in result.generators) == result.total.due


async def test_latencies_are_those_that_the_models_steps_make(service: Serving) -> None:
    result = await run(scenario(service, seconds=1.0, slo={"ttft_ms": 5 * 1000 * STEP_S, "tpot_ms": 1000}))
    step_ms = 1000 * STEP_S
    assert step_ms <= median_ms(result, "ttft") < 5 * step_ms
    assert 0.9 * step_ms < median_ms(result, "tpot") < 2.5 * step_ms
    assert 0.8 * step_ms < median_ms(result, "itl") < 2.5 * step_ms
    assert TOKENS * step_ms <= median_ms(result, "e2e") < 2.5 * TOKENS * step_ms
    assert result.total.due / 2 < result.total.good <= result.total.due
    assert decode(result.total.histograms["late"]).get_total_count() == result.total.due


async def test_a_closed_loop_finds_what_the_slots_can_do(service: Serving) -> None:
    result = await run(scenario(service, seconds=1.5, arrivals={"callers": 2 * SLOTS}))
    (stage,) = result.stages
    capacity = SLOTS / (TOKENS * STEP_S)
    assert 0.4 * capacity < stage.throughput < 1.05 * capacity
    assert (stage.rate, stage.callers, result.total.rate) == (None, 2 * SLOTS, None)
    assert stage.due == stage.ok
    assert max(one.in_flight for one in result.intervals) == 2 * SLOTS
    assert max(sample.running_jobs for sample in result.server) == SLOTS
    assert result.server[-1].rows - result.server[0].rows > 0


async def test_a_worker_that_stalls_shows_in_the_latencies_of_all_that_were_due_in_it(service: Serving) -> None:
    asleep = asyncio.Event()

    def stall(interval: Interval) -> None:
        if interval.at_s == 0 and not asleep.is_set():
            asleep.set()
            service.worker.pause()
            asyncio.get_running_loop().call_later(1.0, service.worker.resume)

    result = await run(scenario(service, arrivals={"constant": 20}, seconds=2.5, warmup_s=0.2), stall)
    assert result.total.ended == {"OK": 50}
    e2e = decode(result.total.histograms["e2e"]).get_recorded_iterator()
    slow = sum(one.count_added_in_this_iter_step for one in e2e if one.value_iterated_to > 500_000)
    assert 8 <= slow < 50


async def test_refusals_are_counted_and_end_nothing(service: Serving) -> None:
    requests = {"prompt_tokens": 5, "max_tokens": 4, "options": {"temperature": -1}}
    result = await run(scenario(service, requests=requests, seconds=0.5, warmup_s=0.0))
    total = result.total
    assert total.ended == {"INVALID_ARGUMENT": total.due}
    assert total.reasons == {"INVALID_REQUEST": total.due}
    assert any(note.startswith("INVALID_REQUEST: ") and "temperature" in note for note in result.notes)
    assert (total.good, total.answered, total.due > 0) == (0, 0, True)


async def test_the_result_says_what_was_run_on_what(service: Serving, tmp_path: Path) -> None:
    asked = scenario(service, seconds=0.5, warmup_s=0.0, http="", arrivals={"ramp": {"from": 5, "to": 20}})
    result = await run(asked)
    write_result(result, tmp_path / "result.json")
    assert read_result(tmp_path / "result.json") == result
    assert (result.scenario, result.task, result.server, result.notes) == (asked, "generate", [], [])
    assert len(result.stages) == 10
    assert result.versions.keys() >= {"python", "grpcio", "stub"}
    assert result.hardware.keys() >= {"cpu", "cores", "memory_gib"}


async def test_a_model_that_is_not_there_is_named_and_so_are_those_that_are(service: Serving) -> None:
    with pytest.raises(NotFound, match="there is no model 'nix'; served are: stub"):
        await run(scenario(service, model="nix"))
    with pytest.raises(NotFound, match="stub has no version '7'; it has: 1"):
        await run(scenario(service, model_version="7"))


async def test_a_service_that_is_not_there_is_named(service: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("millrace.load.run.FIND_S", 0.1)
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(Unavailable, match=f"no Millrace answers at {address}"):
        await run(scenario(service, address=address))


async def test_a_scenario_that_does_not_fit_the_task_starts_nothing(service: Serving) -> None:
    with pytest.raises(ValueError, match="rows"):
        await run(scenario(service, requests={"rows": 3}))


async def test_a_generator_that_dies_is_reported_and_the_others_are_stopped(service: Serving) -> None:
    with pytest.raises(MillraceError, match="load generator 0 ended with signal SIGKILL"):
        await run(scenario(service, generators=2), lambda interval: generators()[0].kill())
    assert generators() == []


async def test_cancelling_a_run_stops_its_generators(service: Serving) -> None:
    begun = asyncio.Event()
    running = asyncio.create_task(run(scenario(service, generators=2, seconds=60), lambda interval: begun.set()))
    await begun.wait()
    assert len(generators()) == 2
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert generators() == []


def test_no_process_of_a_closed_loop_is_without_a_caller() -> None:
    asked = make_scenario({"model": "stub", "generators": 8, "arrivals": {"callers": 3}})
    assert [(order.own, order.generators) for order in orders(asked, "generate", "s")] == [(0, 3), (1, 3), (2, 3)]
