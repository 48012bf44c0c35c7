"""Any reply can be lost: the call is repeated, and nothing happens twice."""

import asyncio
from collections.abc import Iterable

import pytest

from millrace.errors import Unavailable
from millrace.queue import End, JobQueue, JobRef, Result, connect
from millrace.queue.types import Emission, Ending, Lease, Verdict
from tests.proxy import LossyProxy
from tests.queue.bench import MODEL, result, submission

JOBS, RESULTS, WORKERS = 24, 5, 3


async def submit_all(queue: JobQueue) -> list[JobRef]:
    async def submit(index: int) -> JobRef:
        while True:
            try:
                return await queue.submit(submission(f"j{index}"))
            except Unavailable:
                await asyncio.sleep(0)

    return list(await asyncio.gather(*(submit(index) for index in range(JOBS))))


async def work(queue: JobQueue, worker: str, taken: list[Lease]) -> None:
    """Takes jobs until there are none, and writes their results, each as often as it takes."""
    sequence = 1
    while True:
        try:
            leases = (await queue.take(MODEL, worker, sequence, jobs=4, cost=100, alone=False)).leases
        except Unavailable:
            continue
        sequence += 1
        if not leases:
            return
        taken += leases
        for offset in range(1, RESULTS + 1):
            await emit(queue, [result(lease, offset) for lease in leases])
        await emit(queue, [Emission(ref=lease.ref, token=lease.token, ending=Ending()) for lease in leases])


async def emit(queue: JobQueue, emissions: Iterable[Emission]) -> None:
    while True:
        try:
            verdicts = await queue.emit(MODEL, list(emissions))
        except Unavailable:
            continue
        assert set(verdicts) <= {Verdict.OK, Verdict.DUPLICATE}
        return


@pytest.mark.parametrize("every", [2, 3, 7])
async def test_no_job_and_no_result_is_doubled_or_lost(redis_url: str, every: int) -> None:
    taken: list[Lease] = []
    async with LossyProxy(redis_url, every) as proxy, connect(proxy.url) as lossy, connect(redis_url) as redis:
        queue, truth = JobQueue(lossy), JobQueue(redis)
        refs = await submit_all(queue)
        async with asyncio.TaskGroup() as tasks:
            for worker in range(WORKERS):
                tasks.create_task(work(queue, f"w{worker}", taken))
        assert proxy.lost > 10
        assert sorted(lease.ref for lease in taken) == sorted(refs)
        for ref in refs:
            log = await truth.read(ref)
            assert [entry.offset for entry in log if isinstance(entry, Result)] == list(range(1, RESULTS + 1))
            assert isinstance(log[-1], End)
        assert (await truth.load(MODEL))["jobs"] == 0


async def test_a_server_that_stays_away_is_unavailable() -> None:
    async with connect("redis://127.0.0.1:1/0") as redis:
        with pytest.raises(Unavailable) as error:
            await JobQueue(redis).reap(MODEL)
        assert error.value.reason == "QUEUE_AWAY"
