"""Many jobs, many workers: no call's time grows with all that there is."""

from millrace.queue import ModelEntry, Registry, WorkerEntry, keys
from millrace.queue.registry import WORKER_MS
from tests.queue.bench import MODEL, Bench

MOST_ENDED = 256
"""In take.lua."""
WORKERS = 100
"""More than announce.lua looks at in one call."""


async def test_a_take_ends_so_many_late_jobs_and_the_bell_has_the_worker_come_again(bench: Bench) -> None:
    for index in range(MOST_ENDED + 44):
        await bench.submit(f"late-{index}", timeout_ms=1_000)
    await bench.submit("timely")
    bench.clock.now += 1_001
    await bench.redis.delete(f"{MODEL.base}bell")
    assert await bench.take() == []
    assert (await bench.queue.load(MODEL))["jobs"] == 45
    assert await bench.redis.llen(f"{MODEL.base}bell") == 1
    (lease,) = await bench.take()
    assert lease.ref.job_id == "timely"


async def test_of_many_workers_that_have_gone_nothing_is_left_after_a_while(bench: Bench) -> None:
    registry = Registry(bench.redis)
    for index in range(WORKERS):
        await registry.announce(_worker(f"gone-{index}"), [])
    bench.clock.now += WORKER_MS + 1
    await registry.announce(_worker("alive"), [_model()])
    assert [worker.worker_id for worker in await registry.workers()] == ["alive"]
    for _ in range(WORKERS):
        await registry.announce(_worker("alive"), [_model()])
    assert await bench.redis.hkeys(keys.WORKERS) == [b"alive"]


def _worker(name: str) -> WorkerEntry:
    return WorkerEntry(worker_id=name, device="CPU", execution_provider="CPUExecutionProvider", state="ready")


def _model() -> ModelEntry:
    return ModelEntry(name="story", version="1", task="text-generation", digest="0" * 64)
