"""A worker without room takes jobs of a higher class in the places of lower ones that it holds."""

from typing import Any

import pytest

from millrace.queue.types import Lease, Priority, State, Verdict
from tests.queue.bench import MODEL, Bench, result


async def taken(bench: Bench, job_id: str, priority: Priority = Priority.BATCH, **fields: Any) -> Lease:
    await bench.submit(job_id, priority=priority, **fields)
    return await bench.take_one()


async def test_each_higher_job_takes_the_place_of_the_next_that_is_offered(bench: Bench) -> None:
    lower = [await taken(bench, job_id) for job_id in "abc"]
    await bench.submit("standard")
    await bench.submit("urgent", priority=Priority.INTERACTIVE)
    changed = await bench.take_in_place(*lower)
    assert [lease.ref.job_id for lease in changed.leases] == ["urgent", "standard"]
    assert [lease.priority for lease in changed.leases] == [Priority.INTERACTIVE, Priority.STANDARD]
    assert list(changed.given_back) == [lower[0].token, lower[1].token]
    assert [await bench.state(lease.ref) for lease in lower] == [State.WAITING, State.WAITING, State.RUNNING]
    assert await bench.job_ids(2) == ["a", "b"]


async def test_room_is_taken_before_anybody_gives_way(bench: Bench) -> None:
    lower = await taken(bench, "a")
    await bench.submit("urgent", priority=Priority.INTERACTIVE)
    changed = await bench.take_in_place(lower, jobs=1)
    assert ([lease.ref.job_id for lease in changed.leases], changed.given_back) == (["urgent"], ())


@pytest.mark.parametrize("priority", Priority)
async def test_nobody_gives_way_to_an_equal_or_to_a_lower_one(bench: Bench, priority: Priority) -> None:
    lease = await taken(bench, "a", priority)
    for waiting in Priority:
        if waiting <= priority:
            await bench.submit(waiting.name, priority=waiting)
    changed = await bench.take_in_place(lease)
    assert (changed.leases, changed.given_back) == ((), ())
    assert await bench.queue.renew(MODEL, [(lease.ref, lease.token)]) == [Verdict.OK]


async def test_who_gave_way_goes_on_behind_its_results_without_a_strike_or_an_attempt(bench: Bench) -> None:
    lower = await taken(bench, "a")
    await bench.emit(result(lower, 1))
    for number in range(60):
        await bench.submit(f"urgent-{number}", priority=Priority.INTERACTIVE)
        (urgent,) = (await bench.take_in_place(lower)).leases
        assert await bench.emit(result(lower, 2)) == [Verdict.LOST]
        await bench.finish(urgent)
        lower = await bench.take_one()
        assert (lower.epoch, lower.attempts, lower.strikes, lower.last_offset) == (number + 2, 1, 0, 1)
    assert await bench.emit(result(lower, 2)) == [Verdict.OK]


async def test_a_change_of_places_whose_reply_was_lost_is_told_again(bench: Bench) -> None:
    lower = await taken(bench, "a")
    await bench.submit("urgent", priority=Priority.INTERACTIVE)
    offered = [(lower.ref, lower.token, 0)]
    first, again = [
        await bench.queue.take(MODEL, "w", 99, jobs=0, cost=100, alone=False, offered=offered) for _ in range(2)
    ]
    assert first == again
    assert first.given_back == (lower.token,)


async def test_a_lease_that_is_lost_gives_no_place(bench: Bench) -> None:
    zombie = await taken(bench, "a")
    await bench.pass_time(4)
    await bench.take_one("other")
    await bench.submit("urgent", priority=Priority.INTERACTIVE)
    changed = await bench.take_in_place(zombie)
    assert (changed.leases, changed.given_back) == ((), ())


async def test_a_higher_job_that_does_not_fit_drives_out_nobody(bench: Bench) -> None:
    lower = await taken(bench, "a")
    await bench.submit("big", priority=Priority.INTERACTIVE, cost=100)
    changed = await bench.take_in_place(lower, cost=50)
    assert (changed.leases, changed.given_back) == ((), ())


async def test_who_gives_way_and_is_wanted_no_more_ends(bench: Bench) -> None:
    await bench.pass_time(1)
    lower = await taken(bench, "a", timeout_ms=500)
    bench.clock.now += 600
    await bench.submit("urgent", priority=Priority.INTERACTIVE)
    changed = await bench.take_in_place(lower)
    assert changed.given_back == (lower.token,)
    assert await bench.reason(lower.ref) == "DEADLINE_EXCEEDED"


async def test_a_tenant_pays_for_what_was_done_before_its_job_gave_way(bench: Bench) -> None:
    lower = await taken(bench, "a", cost=10)
    await bench.emit(result(lower, 1, cost=4))
    await bench.submit("urgent", priority=Priority.INTERACTIVE)
    await bench.take_in_place(lower)
    assert await bench.redis.zscore(f"{MODEL.base}fair:10", "a") == 4


async def test_the_look_tells_whether_a_higher_class_waits(bench: Bench) -> None:
    async def waited_for() -> list[Priority]:
        return [priority for priority in Priority if await bench.queue.is_waited_for(MODEL, above=priority)]

    assert await waited_for() == []
    await bench.submit("a", priority=Priority.BATCH)
    assert await waited_for() == []
    await bench.submit("b")
    assert await waited_for() == [Priority.BATCH]
    await bench.submit("c", priority=Priority.INTERACTIVE)
    assert await waited_for() == [Priority.BATCH, Priority.STANDARD]
    await bench.job_ids(3)
    assert await waited_for() == []


async def test_a_job_with_a_strike_does_not_count_since_it_runs_alone(bench: Bench) -> None:
    await bench.submit("suspect", priority=Priority.INTERACTIVE)
    await bench.take_one("dead")
    await bench.pass_time(4)
    assert not await bench.queue.is_waited_for(MODEL, above=Priority.BATCH)
