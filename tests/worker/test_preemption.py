"""Jobs of a lower class give way to those of a higher one, and go on later."""

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial

import pytest

from millrace.queue import JobRef, Lease, Priority, State
from services.worker import preemption
from services.worker.preemption import KEPT_S, LOOK_S, candidates
from services.worker.results import Held
from tests.eventually import eventually
from tests.worker.bench import MODEL, Bench, ending, of, tokens
from tests.worker.counting import CountingEngine

PREEMPTIONS = "millrace_worker_preemptions_total"


def held(name: str, priority: Priority, *, cost: int = 0, age_s: float = 1.0, strikes: int = 0) -> Held:
    lease = Lease(
        ref=JobRef(MODEL, "default", name),
        token=name,
        epoch=1,
        strikes=strikes,
        attempts=1,
        priority=priority,
        last_offset=0,
        history=bytes(8),
        cost=10,
        fingerprint="f",
        submit_ms=0,
        task="generate",
        first_take_ms=0,
        take_ms=0,
        deadline_ms=0,
    )
    return Held(lease=lease, offset=0, history=bytes(8), cost=cost, taken_at=1000.0 - age_s)


def test_the_lowest_class_goes_first_then_who_has_least_to_lose_then_the_newest() -> None:
    jobs = [
        held("standard", Priority.STANDARD),
        held("dear", Priority.BATCH, cost=50),
        held("older", Priority.BATCH, cost=5, age_s=9.0),
        held("newer", Priority.BATCH, cost=5, age_s=2.0),
    ]
    assert [job.lease.token for job in candidates(jobs, 1000.0)] == ["newer", "older", "dear", "standard"]


def test_the_highest_class_a_suspect_and_who_has_just_come_stay() -> None:
    jobs = [
        held("interactive", Priority.INTERACTIVE),
        held("suspect", Priority.BATCH, strikes=1),
        held("fresh", Priority.BATCH, age_s=KEPT_S / 2),
    ]
    assert candidates(jobs, 1000.0) == []


async def started(bench: Bench, *refs: JobRef) -> bool:
    return all([(await bench.record(ref)).last_offset > 0 for ref in refs])


async def test_batch_jobs_give_way_and_go_on_behind_their_results(bench: Bench) -> None:
    engine = CountingEngine(slots=4)
    batch = [await bench.submit(1_000, priority=Priority.BATCH) for _ in range(4)]
    async with bench.host(engine):
        await eventually(lambda: bench.counted("millrace_worker_results_emitted_total") > 400)
        before = engine.steps
        urgent = [await bench.submit(40, priority=Priority.INTERACTIVE) for _ in range(3)]
        await eventually(lambda: started(bench, *urgent))
        assert engine.steps - before < 1.0 / engine.step_s
        for ref in urgent:
            await eventually(partial(bench.ended, ref))
        assert not any([await bench.ended(ref) for ref in batch])
        for ref in batch:
            await eventually(partial(bench.ended, ref), within_s=20)
    for ref, wanted in (*((ref, 1_000) for ref in batch), *((ref, 40) for ref in urgent)):
        log = await bench.log(ref)
        assert tokens(log) == list(range(wanted))
        assert ending(log).reason == ""
        record = await bench.record(ref)
        assert (record.attempts, record.strikes) == (1, 0)
    assert bench.counted(PREEMPTIONS) == 3
    assert len(engine.behind) == 4 + 3 + 3
    assert len([behind for _, behind in engine.behind if behind > 50]) == 3
    computed_twice = engine.numbers - 4 * 1_000 - 3 * 40
    assert computed_twice < 3 * 20


async def test_standard_gives_way_to_interactive_alone_and_batch_before_it(bench: Bench) -> None:
    engine = CountingEngine(slots=2)
    batch, standard = await bench.submit(1_500, priority=Priority.BATCH), await bench.submit(1_500)
    async with bench.host(engine):
        await eventually(lambda: started(bench, batch, standard))
        second = await bench.submit(1_500)
        await eventually(lambda: started(bench, second))
        assert engine.aborted == [batch.job]
        third = await bench.submit(10)
        await eventually(lambda: bench.counted("millrace_worker_results_emitted_total") > 1_000, within_s=20)
        assert await bench.state(third) is State.WAITING
        urgent = await bench.submit(10, priority=Priority.INTERACTIVE)
        await eventually(lambda: bench.ended(urgent))
        assert len(engine.aborted) == 2
        assert engine.aborted[1] in (standard.job, second.job)
        for ref in (standard, second, third, batch):
            await eventually(partial(bench.ended, ref), within_s=20)
    for ref, wanted in ((standard, 1_500), (second, 1_500), (third, 10), (batch, 1_500)):
        assert tokens(await bench.log(ref)) == list(range(wanted))


async def test_a_job_gives_way_more_often_than_it_may_be_attempted(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preemption, "KEPT_S", 0.01)
    monkeypatch.setattr(preemption, "LOOK_S", 0.005)
    engine = CountingEngine(slots=1, step_s=0.001)
    batch = await bench.submit(2_000, priority=Priority.BATCH)
    async with bench.host(engine) as host:
        for _ in range(55):
            await eventually(lambda: of(host, batch))
            urgent = await bench.submit(1, priority=Priority.INTERACTIVE)
            await eventually(partial(bench.ended, urgent))
        await eventually(lambda: bench.ended(batch), within_s=20)
    assert bench.counted(PREEMPTIONS) == 55
    record = await bench.record(batch)
    assert (record.attempts, record.strikes) == (1, 0)
    assert tokens(await bench.log(batch)) == list(range(2_000))


async def test_a_job_with_a_strike_does_not_give_way(bench: Bench) -> None:
    suspect = await bench.submit(100, priority=Priority.BATCH)
    await bench.queue.take(MODEL, "dead", 1, jobs=1, cost=1e9, alone=True)
    await eventually(lambda: lapsed(bench, suspect))
    engine = CountingEngine(slots=1, step_s=0.005)
    async with bench.host(engine) as host:
        await eventually(lambda: of(host, suspect))
        urgent = await bench.submit(5, priority=Priority.INTERACTIVE)
        await eventually(lambda: bench.ended(urgent))
    assert await bench.ended(suspect)
    assert engine.aborted == []


async def lapsed(bench: Bench, ref: JobRef) -> bool:
    await bench.queue.reap(MODEL)
    return (await bench.record(ref)).strikes > 0


async def looks(bench: Bench) -> int:
    """How often anybody has asked whether a higher class waits."""
    stats = await bench.calls.info("commandstats")
    return int(stats.get("cmdstat_exists", {"calls": 0})["calls"])


@pytest.mark.parametrize(("priority", "rate"), [(Priority.INTERACTIVE, 0.0), (Priority.STANDARD, 1 / LOOK_S)])
async def test_a_full_host_looks_rarely_and_not_at_all_where_nobody_could_give_way(
    bench: Bench, priority: Priority, rate: float
) -> None:
    engine = CountingEngine(slots=2)
    refs = [await bench.submit(300, priority=priority) for _ in range(2)]
    before, began = await looks(bench), time.monotonic()
    async with bench.host(engine):
        for ref in refs:
            await eventually(partial(bench.ended, ref))
    assert await looks(bench) - before <= rate * (time.monotonic() - began)
    assert bench.counted(PREEMPTIONS) == 0


@pytest.fixture
async def hosts(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[CountingEngine]]:
    monkeypatch.setattr(preemption, "KEPT_S", 0.02)
    monkeypatch.setattr(preemption, "LOOK_S", 0.01)
    engines = [CountingEngine(slots=2) for _ in range(2)]
    async with AsyncExitStack() as stack:
        for number, engine in enumerate(engines):
            await stack.enter_async_context(bench.host(engine, f"w{number}"))
        yield engines


def has_run(engines: list[CountingEngine], numbers: int) -> bool:
    return sum(engine.numbers for engine in engines) > numbers


async def test_workers_that_preempt_at_once_lose_and_double_nothing(bench: Bench, hosts: list[CountingEngine]) -> None:
    jobs: dict[JobRef, int] = {}
    for number in range(60):
        priority = (Priority.BATCH, Priority.STANDARD, Priority.INTERACTIVE)[number % 3]
        length = {Priority.BATCH: 150, Priority.STANDARD: 60, Priority.INTERACTIVE: 15}[priority]
        jobs[await bench.submit(length, priority=priority)] = length
        if number % 5 == 0:
            await eventually(partial(has_run, hosts, number * 10))
    for ref in jobs:
        await eventually(partial(bench.ended, ref), within_s=30)
    for ref, length in jobs.items():
        log = await bench.log(ref)
        assert tokens(log) == list(range(length))
        assert ending(log).reason == ""
        record = await bench.record(ref)
        assert (record.attempts, record.strikes) == (1, 0)
    assert bench.counted(PREEMPTIONS) > 5
    assert bench.counted("millrace_worker_jobs_dropped_total", verdict="lost") <= bench.counted(PREEMPTIONS)
