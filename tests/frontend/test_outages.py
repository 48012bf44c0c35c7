"""Redis away, messages lost, frontends drained: streams go on, or end with the truth, in bounded time."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator

import grpc.aio
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse  # type: ignore[import-untyped]
from grpc_health.v1.health_pb2_grpc import HealthStub  # type: ignore[import-untyped]
from redis.asyncio import Redis

from millrace.queue import State
from millrace.v1.generation_pb2 import GenerateResponse
from millrace.v1.generation_pb2_grpc import TextGenerationServiceStub
from millrace.v1.job_pb2 import JobOptions
from millrace.v1.job_service_pb2 import GetJobRequest
from millrace.v1.job_service_pb2_grpc import JobServiceStub
from services.frontend.server import Frontend
from tests.eventually import eventually
from tests.frontend.playing import Generation, Worker, frontend, read, reason, request, texts, trailer
from tests.processes import Service, Valkey


@pytest.fixture
async def own_valkey() -> AsyncIterator[Valkey]:
    """A server that the test may freeze and kill; it keeps what it was told."""
    async with Valkey(durable=True) as server:
        yield server


async def test_a_dropped_subscription_loses_nothing(
    redis_url: str, served: Frontend, generation: Generation, worker: Worker
) -> None:
    call = generation.Generate(request())
    held = await worker.take()
    async with Redis.from_url(redis_url) as redis:
        for number in range(60):
            if number % 20 == 10:
                await redis.client_kill_filter(_type="pubsub")
                await eventually(lambda: not served.readiness.mailbox_subscribed)
            await held.emit(f"t{number}", last=number == 59)
    assert texts(await read(call)) == [f"t{number}" for number in range(60)]


async def test_a_stream_ends_in_time_even_where_no_message_ever_arrives(
    served: Frontend, generation: Generation, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served.mailbox, "_deliver", lambda message: None)
    call = generation.Generate(request())
    held = await worker.take()
    await held.emit("one")
    await held.emit("two", last=True)
    started = time.monotonic()
    assert texts(await read(call)) == ["one", "two"]
    assert time.monotonic() - started < 2


async def test_while_redis_is_frozen_new_calls_fail_in_time_and_running_streams_wait(own_valkey: Valkey) -> None:
    async with (
        Worker(own_valkey.url) as worker,
        frontend(own_valkey.url) as served,
        grpc.aio.insecure_channel(served.grpc_address) as channel,
    ):
        stub = TextGenerationServiceStub(channel)
        running = stub.Generate(request())
        held = await worker.take()
        await held.emit("before")
        own_valkey.pause()
        started = time.monotonic()
        calls = [read(stub.Generate(request())) for _ in range(100)]
        failures = await asyncio.gather(*calls, return_exceptions=True)
        assert time.monotonic() - started < 6
        assert {_code(failure) for failure in failures} == {grpc.StatusCode.UNAVAILABLE}
        await eventually(lambda: not served.readiness.ready)
        started = time.monotonic()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await read(stub.Generate(request()))
        assert (caught.value.code(), reason(caught.value)) == (grpc.StatusCode.UNAVAILABLE, "QUEUE_AWAY")
        assert time.monotonic() - started < 0.5
        answer = await HealthStub(channel).Check(HealthCheckRequest())
        assert answer.status == HealthCheckResponse.NOT_SERVING
        own_valkey.resume()
        await eventually(lambda: served.readiness.ready)
        await held.emit("after", last=True)
        assert texts(await read(running)) == ["before", "after"]


def _code(failure: object) -> grpc.StatusCode:
    assert isinstance(failure, grpc.aio.AioRpcError)
    return failure.code()


async def test_a_stream_goes_on_when_redis_was_killed_and_came_back(own_valkey: Valkey) -> None:
    async with (
        Worker(own_valkey.url) as worker,
        frontend(own_valkey.url) as served,
        grpc.aio.insecure_channel(served.grpc_address) as channel,
    ):
        call = TextGenerationServiceStub(channel).Generate(request())
        held = await worker.take()
        await held.emit("before")
        own_valkey.kill()
        await eventually(lambda: not served.readiness.ready)
        await asyncio.to_thread(own_valkey.start)
        await held.emit("after")
        await held.emit("end", last=True)
        assert texts(await read(call)) == ["before", "after", "end"]


async def test_a_stream_whose_job_redis_has_forgotten_ends_with_data_loss() -> None:
    async with (
        Valkey() as forgetful,
        Worker(forgetful.url) as worker,
        frontend(forgetful.url) as served,
        grpc.aio.insecure_channel(served.grpc_address) as channel,
    ):
        call = TextGenerationServiceStub(channel).Generate(request())
        await (await worker.take()).emit("before")
        assert isinstance(await call.read(), GenerateResponse)
        forgetful.kill()
        await asyncio.to_thread(forgetful.start)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await read(call)
        assert (caught.value.code(), reason(caught.value)) == (grpc.StatusCode.DATA_LOSS, "JOB_LOST")


async def test_an_outage_that_does_not_end_ends_the_streams(own_valkey: Valkey) -> None:
    async with (
        Worker(own_valkey.url) as worker,
        frontend(own_valkey.url, outage_s=0.5) as served,
        grpc.aio.insecure_channel(served.grpc_address) as channel,
    ):
        call = TextGenerationServiceStub(channel).Generate(request())
        await worker.take()
        own_valkey.kill()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await read(call)
        assert (caught.value.code(), reason(caught.value)) == (grpc.StatusCode.UNAVAILABLE, "QUEUE_AWAY")
        assert "millrace-ended" not in trailer(caught.value)


async def test_a_draining_frontend_says_so_closes_its_door_and_lets_streams_end(redis_url: str, worker: Worker) -> None:
    async with (
        frontend(redis_url, drain_s=10) as served,
        grpc.aio.insecure_channel(served.grpc_address) as channel,
    ):
        stub = TextGenerationServiceStub(channel)
        running = stub.Generate(request())
        held = await worker.take()
        health = HealthStub(channel).Watch(HealthCheckRequest())
        assert (await health.read()).status == HealthCheckResponse.SERVING
        served.stop()
        assert (await health.read()).status == HealthCheckResponse.NOT_SERVING

        async def refused() -> grpc.StatusCode | None:
            try:
                await JobServiceStub(channel).GetJob(GetJobRequest(job_id="a"))
            except grpc.aio.AioRpcError as error:
                return error.code() if error.code() is not grpc.StatusCode.NOT_FOUND else None
            return None

        await eventually(refused)
        assert await refused() is grpc.StatusCode.UNAVAILABLE
        await held.emit("all", last=True)
        assert texts(await read(running)) == ["all"]


async def test_a_stream_that_outlasts_the_drain_is_sent_elsewhere_and_its_job_goes_on(
    redis_url: str, worker: Worker
) -> None:
    job = JobOptions(job_id="a")
    async with frontend(redis_url, drain_s=0.1) as served, grpc.aio.insecure_channel(served.grpc_address) as channel:
        call = TextGenerationServiceStub(channel).Generate(request(job=job))
        held = await worker.take()
        await held.emit("one")
        assert isinstance(await call.read(), GenerateResponse)
        served.stop()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await read(call)
        assert (caught.value.code(), reason(caught.value)) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
        assert "millrace-ended" not in trailer(caught.value)
    record = await worker.queue.inspect(held.lease.ref)
    assert record is not None
    assert record.state is State.RUNNING
    job.after_offset = 1
    async with frontend(redis_url) as other, grpc.aio.insecure_channel(other.grpc_address) as channel:
        resumed = TextGenerationServiceStub(channel).Generate(request(job=job))
        await resumed.initial_metadata()
        await held.emit("two", last=True)
        assert texts(await read(resumed)) == ["two"]


async def test_a_background_failure_ends_the_process_loudly(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = asyncio.Event()

    async def fail() -> None:
        failed.set()
        raise RuntimeError("planted")

    async def serve() -> None:
        async with frontend(redis_url) as served:
            monkeypatch.setattr(served.interest, "_flush", fail)
            await failed.wait()

    with pytest.raises(ExceptionGroup) as caught:
        await serve()
    assert caught.group_contains(RuntimeError, match="planted")


async def test_the_process_says_when_it_is_ready_and_leaves_with_0_when_told_to(redis_url: str) -> None:
    environment = {
        "MILLRACE_REDIS_URL": redis_url,
        "MILLRACE_GRPC_ADDRESS": "127.0.0.1:0",
        "MILLRACE_HTTP_ADDRESS": "127.0.0.1:0",
    }
    async with Service("services.frontend", environment) as process:
        assert process.ready.keys() == {"grpc", "http"}
        async with grpc.aio.insecure_channel(process.ready["grpc"]) as channel:
            answer = await HealthStub(channel).Check(HealthCheckRequest())
            assert answer.status == HealthCheckResponse.SERVING
        assert await asyncio.to_thread(process.stop) == 0


def test_help_lists_the_settings_with_their_flags_and_variables() -> None:
    command = [sys.executable, "-m", "services.frontend", "--help"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for name in ("redis-url", "grpc-address", "slow-reader-s"):
        assert f"--{name}" in text
        assert f"MILLRACE_{name.replace('-', '_').upper()}" in text


def test_a_flag_wins_over_its_variable_and_a_bad_one_is_named() -> None:
    command = [sys.executable, "-m", "services.frontend", "--lease-ms", "1"]
    refused = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"MILLRACE_LEASE_MS": "3000"})
    assert refused.returncode == 2
    assert "--lease-ms: " in refused.stderr
    assert "not '1'" in refused.stderr
