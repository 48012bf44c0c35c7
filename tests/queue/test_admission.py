"""Admission: the wait that a job would have, who is refused for it, and when to come back."""

import pytest

from millrace.errors import Exhausted, Unavailable
from millrace.queue.types import Priority
from tests.queue.bench import MODEL, Bench
from tests.queue.mill import Mill

JOBS_A_SECOND = 4
"""Of a mill with its defaults; a job runs for a second."""


async def backlog(bench: Bench, seconds: float, **fields: object) -> Mill:
    """A mill that has worked for a while, and jobs for so many seconds waiting before it."""
    mill = Mill(bench)
    for index in range(16):
        await bench.submit(f"warm{index}", **fields)
    await mill.work(2)
    waiting = (await bench.queue.load(MODEL))["jobs"]
    for index in range(round(seconds * JOBS_A_SECOND - waiting)):
        await bench.submit(f"more{index}", **fields)
    return mill


async def refused(bench: Bench, job_id: str = "late", **fields: object) -> Exhausted:
    with pytest.raises(Exhausted) as caught:
        await bench.submit(job_id, **fields)
    return caught.value


async def accepted(bench: Bench, job_id: str, **fields: object) -> bool:
    try:
        await bench.submit(job_id, **fields)
    except Exhausted:
        return False
    return True


async def test_the_capacity_is_what_gets_done_while_something_waits(bench: Bench) -> None:
    mill = await backlog(bench, 10)
    assert (await bench.queue.load(MODEL))["capacity"] == pytest.approx(40, rel=0.1)
    await mill.work(20)
    assert (await bench.queue.load(MODEL))["capacity"] == pytest.approx(40, rel=0.1)


async def test_a_job_that_would_miss_its_deadline_is_refused_before_it_waits(bench: Bench) -> None:
    await backlog(bench, 10)
    error = await refused(bench, timeout_ms=8_000)
    assert error.reason == "DEADLINE_TOO_NEAR"
    assert await bench.queue.locate("a", "late") is None
    assert await accepted(bench, "patient", timeout_ms=15_000)


async def test_what_is_let_in_makes_its_deadline(bench: Bench) -> None:
    mill = await backlog(bench, 1)
    made, let_in = 0, 0
    for moment in range(150):
        let_in += await accepted(bench, f"j{moment}", timeout_ms=4_000)
        await mill.work(0.1)
    await mill.work(5)
    made = sum(name.startswith("a:j") for name in mill.finished)
    assert 0.85 * 15 * JOBS_A_SECOND < let_in < 130
    assert made == let_in


@pytest.mark.parametrize("seconds", [4, 10, 30])
async def test_whoever_comes_back_when_told_is_let_in_and_not_much_too_late(bench: Bench, seconds: int) -> None:
    mill = await backlog(bench, seconds)
    error = await refused(bench, timeout_ms=3_000)
    await mill.work(round(error.retry_after_s / 2, 1) - 0.1)
    await refused(bench, timeout_ms=3_000)
    await mill.work(1.5 * error.retry_after_s + 0.1)
    assert await accepted(bench, "again", timeout_ms=3_000)


async def test_before_anything_is_known_nobody_is_refused_for_the_wait(bench: Bench) -> None:
    for index in range(100):
        await bench.submit(f"j{index}", timeout_ms=1_000)


async def test_where_nothing_waits_every_deadline_is_given_its_chance(bench: Bench) -> None:
    mill = await backlog(bench, 3)
    await mill.work(6)
    assert await accepted(bench, "short", timeout_ms=100)


async def test_a_fleet_that_was_idle_for_long_is_measured_anew(bench: Bench) -> None:
    mill = await backlog(bench, 3)
    await mill.work(6)
    await bench.pass_time(601)
    assert (await bench.queue.load(MODEL))["capacity"] == 0


async def test_classes_are_shed_from_the_lowest(bench: Bench) -> None:
    await backlog(bench, 10, priority=Priority.STANDARD)
    await refused(bench, priority=Priority.BATCH, timeout_ms=8_000)
    await refused(bench, priority=Priority.STANDARD, timeout_ms=8_000)
    assert await accepted(bench, "urgent", priority=Priority.INTERACTIVE, timeout_ms=3_000)


async def test_of_a_bound_each_class_may_fill_its_part(bench: Bench) -> None:
    narrow = bench.limited(max_waiting_jobs=10)
    let_in = {
        priority: [await accepted(narrow, f"{priority.name}{index}", priority=priority) for index in range(10)].count(
            True
        )
        for priority in Priority
    }
    assert let_in == {Priority.BATCH: 5, Priority.STANDARD: 3, Priority.INTERACTIVE: 2}


async def test_a_lower_class_waits_for_what_higher_ones_have_used_lately(bench: Bench) -> None:
    """Interactive jobs take three quarters of the mill, and none of them waits when the batch job asks."""
    mill = await backlog(bench, 8, priority=Priority.BATCH, timeout_ms=3_600_000)
    for moment in range(20):
        for index in range(3):
            await bench.submit(f"u{moment}.{index}", priority=Priority.INTERACTIVE)
        await mill.work(1)
    waiting = (await bench.queue.load(MODEL))["jobs"]
    assert 2 * JOBS_A_SECOND < waiting < 5 * JOBS_A_SECOND
    await refused(bench, priority=Priority.BATCH, timeout_ms=8_000)
    assert await accepted(bench, "patient", priority=Priority.BATCH, timeout_ms=40_000)


async def test_a_tenant_that_floods_costs_another_nothing(bench: Bench) -> None:
    await backlog(bench, 30, tenant="a")
    await refused(bench, tenant="a", timeout_ms=5_000)
    assert await accepted(bench, "mine", tenant="b", timeout_ms=5_000)


async def test_tenants_wait_by_weight(bench: Bench) -> None:
    mill = await backlog(bench, 2)
    for index in range(20):
        await bench.submit(f"l{index}", tenant="light", weight=1.0)
        await bench.submit(f"h{index}", tenant="heavy", weight=4.0)
    await mill.work(2)
    await refused(bench, tenant="light", weight=1.0, timeout_ms=12_000)
    assert await accepted(bench, "h", tenant="heavy", weight=4.0, timeout_ms=12_000)


async def test_behind_half_of_a_bound_every_tenant_has_its_share(bench: Bench) -> None:
    narrow = bench.limited(max_waiting_jobs=100)
    flood = [await accepted(narrow, f"a{index}", tenant="a") for index in range(100)].count(True)
    assert flood == 80
    await bench.take("w", 50)
    assert await accepted(narrow, "b", tenant="b")
    again = [await accepted(narrow, f"c{index}", tenant="a") for index in range(100)].count(True)
    assert again == 10
    others = [await accepted(narrow, f"d{index}", tenant="b") for index in range(100)].count(True)
    assert others == 39


async def test_jobs_that_cost_less_than_was_estimated_shorten_the_wait(bench: Bench) -> None:
    """Each is taken to cost 30, and costs 10."""
    await backlog(bench, 10, cost=30)
    assert await accepted(bench, "j", cost=30, timeout_ms=15_000)
    await refused(bench, cost=30, timeout_ms=6_000)


async def test_a_full_queue_says_when_there_will_be_room(bench: Bench) -> None:
    mill = await backlog(bench, 10)
    narrow = bench.limited(max_waiting_jobs=25)
    error = await refused(narrow)
    assert error.reason == "QUEUE_FULL_JOBS"
    await mill.work(round(error.retry_after_s / 2, 1) - 0.1)
    await refused(narrow)
    await mill.work(1.5 * error.retry_after_s + 0.1)
    assert await accepted(narrow, "again")


async def test_an_outage_is_not_taken_for_slowness(bench: Bench) -> None:
    mill = await backlog(bench, 30)
    await bench.be_away(60)
    await mill.work(2)
    assert (await bench.queue.load(MODEL))["capacity"] == pytest.approx(40, rel=0.15)


async def test_jobs_wait_so_long_for_a_first_worker(bench: Bench) -> None:
    await bench.submit("first", worker_within_ms=60_000)
    await bench.pass_time(59)
    await bench.submit("second", worker_within_ms=60_000)
    await bench.pass_time(2)
    with pytest.raises(Unavailable) as caught:
        await bench.submit("third", worker_within_ms=60_000)
    assert caught.value.reason == "NO_WORKER"
    await bench.take("w", 1)
    await bench.submit("third", worker_within_ms=60_000)
    await bench.take("w", 2)
    await bench.pass_time(100)
    await bench.submit("fourth", worker_within_ms=60_000)
