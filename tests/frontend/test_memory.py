"""A Redis that is nearly full: new work is refused, what runs goes on."""

from collections.abc import AsyncIterator

import grpc.aio
import pytest
from redis.asyncio import Redis

from millrace.v1.generation_pb2_grpc import TextGenerationServiceStub
from millrace.v1.job_pb2 import PRIORITY_BATCH, PRIORITY_INTERACTIVE, JobOptions
from tests.eventually import eventually
from tests.frontend.playing import Worker, frontend, read, refusal, request, texts
from tests.processes import Valkey

FILLING = "filling"


@pytest.fixture
async def server() -> AsyncIterator[Valkey]:
    async with Valkey() as own:
        yield own


@pytest.fixture
async def redis(server: Valkey) -> AsyncIterator[Redis]:
    async with Redis.from_url(server.url) as client:
        yield client


async def fill(redis: Redis, share: float) -> None:
    """So that a share of `maxmemory` is used."""
    await redis.delete(FILLING)
    used = (await redis.info("memory"))["used_memory"]
    most = 64 << 20
    await redis.config_set("maxmemory", most)
    await redis.setrange(FILLING, int(share * most) - used, b"x")


async def test_new_work_is_refused_and_what_runs_goes_on(server: Valkey, redis: Redis) -> None:
    async with (
        Worker(server.url) as worker,
        frontend(server.url) as served,
        grpc.aio.insecure_channel(served.grpc_address) as channel,
    ):
        generation = TextGenerationServiceStub(channel)
        running = generation.Generate(request(job=JobOptions(job_id="mine")))
        held = await worker.take()
        await fill(redis, 0.8)

        async def refused() -> bool:
            await worker.announce()
            return await refusal(generation) == "MEMORY_FULL"

        await eventually(refused)
        again = generation.Generate(request(job=JobOptions(job_id="mine")))
        await again.initial_metadata()
        await held.emit("all", last=True)
        assert texts(await read(running)) == texts(await read(again)) == ["all"]
        await fill(redis, 0.1)

        async def accepted() -> bool:
            await worker.announce()
            return await refusal(generation) == ""

        await eventually(accepted)


async def test_batch_jobs_are_refused_before_interactive_ones(server: Valkey, redis: Redis) -> None:
    async with (
        Worker(server.url) as worker,
        frontend(server.url) as served,
        grpc.aio.insecure_channel(served.grpc_address) as channel,
    ):
        generation = TextGenerationServiceStub(channel)
        await fill(redis, 0.62)

        async def refused() -> bool:
            await worker.announce()
            return await refusal(generation, JobOptions(priority=PRIORITY_BATCH)) == "MEMORY_FULL"

        await eventually(refused)
        assert await refusal(generation, JobOptions(priority=PRIORITY_INTERACTIVE)) == ""
