"""However a call ends, the frontend lets go of everything, and the job of a caller that will not come back stops."""

import asyncio

import grpc.aio
import pytest

from millrace.errors import Code
from millrace.queue import State, Verdict
from millrace.v1.generation_pb2 import GenerateRequest
from millrace.v1.generation_pb2_grpc import TextGenerationServiceStub
from millrace.v1.job_pb2 import JobOptions
from services.frontend.server import Frontend
from tests.eventually import eventually
from tests.frontend.playing import Generation, Held, Worker, frontend, read, reason, request, texts
from tests.proxy import Proxy

LARGE = "x" * (1 << 20)


async def everything_is_let_go(served: Frontend, tasks: int) -> None:
    await eventually(lambda: len(served.interest) == 0)
    await eventually(lambda: served.metrics.registry.get_sample_value("millrace_frontend_streams") == 0)
    await eventually(lambda: len(asyncio.all_tasks()) <= tasks)


async def is_abandoned(worker: Worker, held: Held) -> None:
    ending = await worker.ending(held.lease.ref, within_s=2)
    assert (ending.code, ending.reason) == (Code.CANCELLED, "ABANDONED")
    assert await held.emit("nobody wants this") is Verdict.LOST


def named() -> GenerateRequest:
    """A request whose job can still be looked at when it has ended."""
    return request(job=JobOptions(job_id="a"))


async def block(held: Held) -> None:
    """More than all buffers between a frontend and a caller that does not read."""
    for _ in range(16):
        await held.emit(LARGE)


async def test_a_caller_that_cancels_while_it_waits(served: Frontend, generation: Generation, worker: Worker) -> None:
    tasks = len(asyncio.all_tasks())
    call = generation.Generate(named())
    held = await worker.take()
    call.cancel()
    await is_abandoned(worker, held)
    await everything_is_let_go(served, tasks)


async def test_a_caller_that_cancels_while_a_write_is_blocked(
    served: Frontend, generation: Generation, worker: Worker
) -> None:
    tasks = len(asyncio.all_tasks())
    call = generation.Generate(named())
    held = await worker.take()
    await block(held)
    call.cancel()
    await is_abandoned(worker, held)
    await everything_is_let_go(served, tasks)


async def test_a_caller_whose_deadline_passes(served: Frontend, generation: Generation, worker: Worker) -> None:
    tasks = len(asyncio.all_tasks())
    call = generation.Generate(named(), timeout=0.5)
    held = await worker.take()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await read(call)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert (await worker.ending(held.lease.ref, within_s=2)).reason in ("ABANDONED", "DEADLINE_EXCEEDED")
    await everything_is_let_go(served, tasks)


async def test_a_caller_whose_connection_is_lost(served: Frontend, worker: Worker) -> None:
    tasks = len(asyncio.all_tasks())
    async with Proxy(served.grpc_address) as proxy, grpc.aio.insecure_channel(proxy.address) as channel:
        call = TextGenerationServiceStub(channel).Generate(named())
        held = await worker.take()
        proxy.break_connections()
        await is_abandoned(worker, held)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await read(call)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    await everything_is_let_go(served, tasks)


async def test_calls_cancelled_at_any_moment_leave_no_running_job(
    served: Frontend, generation: Generation, worker: Worker
) -> None:
    tasks = len(asyncio.all_tasks())
    calls = [generation.Generate(request()) for _ in range(100)]
    for number, call in enumerate(calls):
        if number % 3 == 0:
            await asyncio.sleep(0)
        elif number % 3 == 1:
            await call.initial_metadata()
        call.cancel()
    await everything_is_let_go(served, tasks)

    async def nothing_waits() -> bool:
        load = await worker.queue.load(worker.model)
        return load["jobs"] == load["running"] == load["bytes"] == 0

    await eventually(nothing_waits, within_s=2)


async def test_one_of_two_readers_of_a_job_may_leave(served: Frontend, generation: Generation, worker: Worker) -> None:
    job = JobOptions(job_id="a")
    first = generation.Generate(request(job=job))
    held = await worker.take()
    second = generation.Generate(request(job=job))
    await eventually(lambda: len(served.interest) == 2)
    first.cancel()
    await eventually(lambda: len(served.interest) == 1)
    await held.emit("all", last=True)
    assert texts(await read(second)) == ["all"]


async def test_a_job_with_a_resume_window_outlives_its_reader(generation: Generation, worker: Worker) -> None:
    job = JobOptions(job_id="a")
    job.resume_window.FromSeconds(30)
    call = generation.Generate(request(job=job))
    held = await worker.take()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call.read()
    await held.emit("one")
    record = await worker.queue.inspect(held.lease.ref)
    assert record is not None
    assert record.state is State.RUNNING
    resumed = generation.Generate(request(job=job))
    await held.emit("two", last=True)
    assert texts(await read(resumed)) == ["one", "two"]


async def test_a_reader_that_does_not_read_is_dropped_and_its_job_stops(redis_url: str, worker: Worker) -> None:
    async with (
        frontend(redis_url, slow_reader_s=0.5) as served,
        grpc.aio.insecure_channel(served.grpc_address) as channel,
    ):
        slow = TextGenerationServiceStub(channel).Generate(named())
        held = await worker.take()
        await block(held)
        await is_abandoned(worker, held)
        await eventually(lambda: len(served.interest) == 0)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await read(slow)
        assert (caught.value.code(), reason(caught.value)) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "SLOW_READER")
