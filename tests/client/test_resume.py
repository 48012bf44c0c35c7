"""Streams that survive their frontends: each delta once, in order."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

import pytest

import millrace
from millrace import AsyncClient
from tests.eventually import eventually
from tests.frontend.playing import Worker, frontend
from tests.processes import Service, free_port
from tests.proxy import Proxy

RESULTS = 40


async def collected(client: AsyncClient, texts: list[str]) -> None:
    async for delta in client.generate("echo", "hello"):
        assert delta.offset == len(texts) + 1
        texts.append(delta.text)


async def streamed_through(
    client: AsyncClient, worker: Worker, disturb: Callable[[int], Awaitable[None]], results: int = RESULTS
) -> None:
    """Reads one generation while the worker works on it; `disturb` is called before each result."""
    texts: list[str] = []
    reading = asyncio.ensure_future(collected(client, texts))
    held = await worker.take()
    for number in range(results):
        await disturb(number)
        await held.emit(f"t{number}", last=number == results - 1)
        await eventually(partial(_keeps_up, texts, number - 8), within_s=10)
    await reading
    assert texts == [f"t{number}" for number in range(results)]


def _keeps_up(texts: list[str], at_least: int) -> bool:
    return len(texts) >= at_least


@pytest.fixture
async def processes(redis_url: str, worker: Worker) -> AsyncIterator[list[Service]]:
    """Two frontends, which keep their ports when they are started again."""
    environment = {"MILLRACE_REDIS_URL": redis_url, "MILLRACE_HTTP_ADDRESS": "127.0.0.1:0", "MILLRACE_DRAIN_S": "0.2"}
    services = [
        Service("services.frontend", environment | {"MILLRACE_GRPC_ADDRESS": f"127.0.0.1:{free_port()}"})
        for _ in range(2)
    ]
    async with services[0], services[1]:
        await worker.announce()  # the first time may have lapsed while they started
        yield services


async def test_broken_connections_are_resumed(redis_url: str, worker: Worker) -> None:
    async with (
        frontend(redis_url) as served,
        Proxy(served.grpc_address) as proxy,
        AsyncClient(proxy.address) as client,
    ):

        async def disturb(number: int) -> None:
            if number % 10 == 5:
                proxy.break_connections()

        await streamed_through(client, worker, disturb)


async def test_a_connection_lost_before_the_first_result_does_not_start_a_second_job(
    redis_url: str, worker: Worker
) -> None:
    async with (
        frontend(redis_url) as served,
        Proxy(served.grpc_address) as proxy,
        AsyncClient(proxy.address) as client,
    ):
        reading = asyncio.ensure_future(client.generate_text("echo", "hello"))
        held = await worker.take()
        proxy.break_connections()
        await held.emit("all", last=True)
        assert (await reading).text == "all"
        assert (await worker.queue.load(worker.model))["jobs"] == 0


async def test_a_killed_frontend_is_left_for_another(processes: list[Service], worker: Worker) -> None:
    addresses = [process.ready["grpc"] for process in processes]
    async with AsyncClient(*addresses) as client:

        async def disturb(number: int) -> None:
            if number == 10:
                processes[0].kill()
                await asyncio.to_thread(processes[0].start)
            elif number == 25:
                processes[1].kill()

        await streamed_through(client, worker, disturb)


async def test_a_frozen_frontend_is_noticed_within_three_seconds(processes: list[Service], worker: Worker) -> None:
    addresses = [process.ready["grpc"] for process in processes]
    async with AsyncClient(*addresses) as client:
        texts: list[str] = []
        reading = asyncio.ensure_future(collected(client, texts))
        held = await worker.take()
        await held.emit("one")
        await eventually(lambda: len(texts) == 1)
        watchers = await worker.redis.hget(f"{worker.model.base}job:{held.lease.ref.job}", "watchers")
        frozen = next(process for process in processes if f"-{process.pid}-" in str(watchers))
        frozen.pause()
        started = time.monotonic()
        await held.emit("two", last=True)
        await reading
        assert texts == ["one", "two"]
        assert time.monotonic() - started < 4
        frozen.resume()


async def test_a_client_gives_up_when_its_budget_is_spent(worker: Worker) -> None:
    async with AsyncClient("127.0.0.1:1", retry_s=0.3) as client:
        started = time.monotonic()
        with pytest.raises(millrace.Unavailable):
            await client.generate_text("echo", "hello")
        assert time.monotonic() - started < 2
