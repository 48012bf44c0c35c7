"""Each process announces its own totals; whoever asks gets the sum, the work of the dead included."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from millrace.errors import Unavailable
from millrace.queue import ModelTotals, ModelVersion, Runs, Spent, Statistics, connect, keys
from millrace.queue.connection import Redis
from millrace.queue.statistics import ANSWER_S, LIFETIME_MS, pack, unpack
from tests.eventually import eventually

MODEL, OTHER = ModelVersion("story", "1"), ModelVersion("story", "2")
TOTALS = ModelTotals(
    last_run_ms=5,
    rows=6,
    runs=2,
    success=Spent(3, 300),
    failure=Spent(1, 10),
    cancelled=Spent(1, 20),
    queue=Spent(3, 30),
    compute_input=Spent(3, 31),
    compute_infer=Spent(3, 32),
    compute_output=Spent(3, 33),
    cache_hit=Spent(7, 70),
    cache_miss=Spent(8, 80),
    batches={2: Runs(1, 10, 11, 12), 4: Runs(1, 20, 21, 22)},
)


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with connect(redis_url) as client:
        yield client


def test_totals_come_back_as_they_were_packed() -> None:
    assert unpack(pack(TOTALS).encode()) == TOTALS


def test_what_another_version_does_not_say_is_nothing() -> None:
    assert unpack(b'{"rows":2,"success":[1,5],"something":9}') == ModelTotals(rows=2, success=Spent(1, 5))


def test_totals_add_up() -> None:
    other = ModelTotals(last_run_ms=4, rows=1, success=Spent(1, 1), batches={2: Runs(1, 1, 1, 1), 1: Runs(1, 0, 5, 0)})
    total = TOTALS + other
    assert (total.last_run_ms, total.rows, total.runs, total.success) == (5, 7, 2, Spent(4, 301))
    assert total.batches == {1: Runs(1, 0, 5, 0), 2: Runs(2, 11, 12, 13), 4: Runs(1, 20, 21, 22)}


async def test_the_sum_is_over_all_processes_and_a_repeated_announcement_changes_nothing(redis: Redis) -> None:
    first, second = Statistics(redis, "w"), Statistics(redis, "w")
    await first.announce({MODEL: TOTALS, OTHER: ModelTotals()})
    await first.announce({MODEL: TOTALS})
    await second.announce({MODEL: ModelTotals(rows=4)})
    await second.announce({MODEL: ModelTotals(rows=5)})
    read = await Statistics(redis, "f").read([MODEL, OTHER])
    assert read == {MODEL: TOTALS + ModelTotals(rows=5), OTHER: ModelTotals()}


async def test_totals_that_cannot_be_read_count_for_nothing(redis: Redis) -> None:
    await Statistics(redis, "w").announce({MODEL: TOTALS})
    await redis.hset(keys.statistics(MODEL), mapping={"a": b"", "b": b"9 {", "c": b'9 {"success":[1,2,3]}'})
    assert await Statistics(redis, "f").read([MODEL]) == {MODEL: TOTALS}


async def test_what_a_process_has_done_counts_for_a_day(redis: Redis) -> None:
    await Statistics(redis, "w").announce({MODEL: TOTALS})
    left_ms = await redis.pttl(keys.statistics(MODEL))
    assert LIFETIME_MS - 60_000 < left_ms <= LIFETIME_MS


async def test_what_has_not_changed_is_not_written_again(redis: Redis) -> None:
    statistics = Statistics(redis, "w")
    await statistics.announce({MODEL: TOTALS})
    await redis.delete(keys.statistics(MODEL))
    await statistics.announce({MODEL: TOTALS})
    assert not await redis.exists(keys.statistics(MODEL))
    await statistics.announce({MODEL: TOTALS + TOTALS})
    assert await redis.exists(keys.statistics(MODEL))


async def test_an_answer_has_what_was_done_just_before_it_was_asked_for(redis: Redis) -> None:
    counted = {MODEL: ModelTotals()}
    processes = [Statistics(redis, "w") for _ in range(3)]
    tasks = [asyncio.create_task(process.run(lambda: counted)) for process in processes]
    try:

        async def all_listen() -> bool:
            ((_, listening),) = await redis.pubsub_numsub(keys.STATISTICS)
            return listening == len(processes)

        await eventually(all_listen)
        asker, loop = Statistics(redis, "f"), asyncio.get_running_loop()
        for rows in range(1, 20):
            counted[MODEL] = ModelTotals(rows=rows)
            began = loop.time()
            await asker.refresh()
            assert (await asker.read([MODEL]))[MODEL].rows == rows * len(processes)
            assert loop.time() - began < ANSWER_S
    finally:
        for task in tasks:
            task.cancel()


async def test_what_a_process_does_is_announced_though_nobody_asks(redis: Redis) -> None:
    task = asyncio.create_task(Statistics(redis, "w").run(lambda: {MODEL: TOTALS}))
    try:

        async def announced() -> bool:
            return await redis.exists(keys.statistics(MODEL)) == 1

        await eventually(announced)
    finally:
        task.cancel()


async def test_a_process_that_hangs_is_not_waited_for_long(redis: Redis) -> None:
    async with redis.pubsub() as deaf:
        await deaf.subscribe(keys.STATISTICS)
        async with asyncio.timeout(10 * ANSWER_S):
            await Statistics(redis, "f").refresh()


async def test_one_question_serves_all_that_wait_for_it(redis: Redis) -> None:
    asker = Statistics(redis, "f")
    async with redis.pubsub() as deaf:
        await deaf.subscribe(keys.STATISTICS)
        async with asyncio.timeout(10 * ANSWER_S):
            await asyncio.gather(*(asker.refresh() for _ in range(100)))
    assert len(await redis.keys(keys.heard("*"))) <= 2


async def test_a_server_that_is_away_is_unavailable() -> None:
    async with connect("redis://127.0.0.1:1/0") as redis:
        with pytest.raises(Unavailable):
            await Statistics(redis, "w").announce({MODEL: TOTALS})
        with pytest.raises(Unavailable):
            await Statistics(redis, "w").read([MODEL])
        with pytest.raises(Unavailable):
            await Statistics(redis, "w").refresh()
