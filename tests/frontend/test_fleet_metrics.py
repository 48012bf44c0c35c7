"""What each frontend's /metrics says of the whole fleet."""

import asyncio
import time

from redis.asyncio import Redis

from millrace.queue import (
    JobQueue,
    Limits,
    Mailbox,
    ModelTotals,
    ModelVersion,
    Registry,
    Runs,
    Spent,
    Statistics,
    connect,
)
from millrace.scrape import Samples, scrape
from services.frontend.fleet_metrics import FleetMetrics
from services.frontend.models import Models
from services.frontend.readiness import Readiness
from services.frontend.server import Frontend
from tests.eventually import eventually
from tests.frontend.playing import MODEL, Generation, Worker, frontend, request
from tests.processes import Valkey

TOTALS = ModelTotals(
    runs=5,
    success=Spent(7, 1),
    failure=Spent(2, 1),
    cancelled=Spent(1, 1),
    batches={1: Runs(count=3), 4: Runs(count=2)},
)
QUEUE = "millrace_queue_"


async def told(served: Frontend, **values: float) -> Samples:
    """What it says once these series of the queue have these values."""

    async def read() -> Samples | None:
        samples = await scrape(served.http_address)
        said = {name: samples.value(QUEUE + name, model="echo/1") for name in values}
        return samples if said == values else None

    return await eventually(read)


async def counted(served: Frontend) -> Samples:
    async def read() -> Samples | None:
        samples = await scrape(served.http_address)
        return samples if samples.value("millrace_model_jobs_total") else None

    return await eventually(read)


async def test_what_waits_and_runs_is_told_by_each_frontend(
    served: Frontend, generation: Generation, worker: Worker, redis_url: str
) -> None:
    calls = [generation.Generate(request()) for _ in range(3)]
    for call in calls:
        await call.initial_metadata()
    await worker.take()
    samples = await told(served, waiting_jobs=2, running_jobs=1, ready_workers=1)
    assert samples.by(QUEUE + "estimated_wait_seconds", "model") == {}
    async with frontend(redis_url) as other:
        await told(other, waiting_jobs=2, running_jobs=1, ready_workers=1)
    for call in calls:
        call.cancel()
    samples = await told(served, waiting_jobs=0, running_jobs=0)
    assert samples.by(QUEUE + "estimated_wait_seconds", "model") == {"echo/1": 0}


async def test_what_was_done_is_summed_over_the_fleet(served: Frontend, redis_url: str) -> None:
    async with connect(redis_url) as redis:
        for name in ("one", "two"):
            await Statistics(redis, name).announce({MODEL: TOTALS})
    samples = await counted(served)
    assert samples.value("millrace_model_runs_total", model="echo/1") == 10
    assert samples.value("millrace_model_run_rows_total", model="echo/1") == 2 * (3 * 1 + 2 * 4)
    jobs = samples.by("millrace_model_jobs_total", "outcome", model="echo/1")
    assert jobs == {"success": 14, "failure": 4, "cancelled": 2}


async def test_without_redis_a_frontend_tells_of_itself_at_once(redis_url: str) -> None:
    async with Valkey() as own, Worker(own.url) as worker, frontend(own.url) as served:
        await told(served, ready_workers=1)
        own.pause()

        async def alone() -> bool:
            began = time.monotonic()
            samples = await scrape(served.http_address)
            assert time.monotonic() - began < 1.8
            assert "millrace_frontend_streams" in samples
            return not any(name.startswith((QUEUE, "millrace_model_")) for name in samples.series)

        await eventually(alone)
        own.resume()
        await eventually(lambda: served.readiness.redis_answers)
        await worker.announce()
        await told(served, ready_workers=1)


async def test_many_scrapes_at_once_cost_redis_as_much_as_one(redis_url: str) -> None:
    second = ModelVersion("echo", "2")
    async with Worker(redis_url), Worker(redis_url, second), connect(redis_url) as calls:
        readiness = Readiness(calls, Mailbox(calls, "f"))
        readiness.redis_answers = True
        await calls.ping()
        metrics = FleetMetrics(JobQueue(calls, Limits()), Models(Registry(calls)), Statistics(calls, "f"), readiness)
        async with Redis.from_url(redis_url) as own:
            await own.config_resetstat()
            await asyncio.gather(*(metrics.refresh() for _ in range(20)))
            commands = await own.info("commandstats")
    made = {name.removeprefix("cmdstat_"): of["calls"] for name, of in commands.items() if "config" not in name}
    assert made == {"time": 2, "hgetall": 2 + 3 * 2, "zcard": 2}
    samples = [sample for family in metrics.collect() for sample in family.samples if sample.name.startswith(QUEUE)]
    assert {sample.labels["model"] for sample in samples} == {"echo/1", "echo/2"}
