"""What a Python caller sees."""

import asyncio

import pytest

import millrace
from millrace import AsyncClient, Code, FinishReason
from millrace.client.request import make_request
from millrace.queue import Ending, State
from millrace.v1.generation_pb2 import GenerateRequest
from millrace.v1.job_service_pb2 import Job
from services.frontend.server import Frontend
from tests.eventually import eventually
from tests.frontend.playing import Worker, frontend


async def test_a_generation_is_streamed_as_deltas(client: AsyncClient, worker: Worker) -> None:
    stream = client.generate("echo", "hello", max_tokens=8, temperature=0.5, priority="interactive")
    first = asyncio.ensure_future(anext(stream))
    held = await worker.take()
    assert (held.request.stopping.max_tokens, held.request.sampling.temperature) == (8, 0.5)
    await held.emit("one")
    assert (await first).text == "one"
    await held.emit("two", last=True)
    last = await anext(stream)
    assert (last.text, last.offset, last.finish_reason) == ("two", 2, FinishReason.STOP)
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_a_whole_completion_can_be_had_at_once(client: AsyncClient, worker: Worker) -> None:
    whole = asyncio.ensure_future(client.generate_text("echo", [1, 2, 3]))
    held = await worker.take()
    assert list(held.request.tokens.ids) == [1, 2, 3]
    await held.emit("one ")
    await held.emit("two", last=True)
    completion = await whole
    assert (completion.text, completion.finish_reason) == ("one two", FinishReason.STOP)
    assert completion.job_id == held.lease.ref.job_id


async def test_a_job_is_submitted_watched_and_cancelled(client: AsyncClient, worker: Worker) -> None:
    job = await client.submit("echo", [{"role": "user", "content": "hello"}])
    held = await worker.take()
    assert held.request.conversation.messages[0].content == "hello"
    await held.emit("one")
    watching = client.watch(job.job_id)
    assert (await anext(watching)).text == "one"
    await watching.aclose()
    assert (await client.get(job.job_id)).state == Job.STATE_RUNNING
    assert (await client.cancel(job.job_id)).state == Job.STATE_CANCELLED
    with pytest.raises(millrace.JobFailed) as caught:
        _ = [delta async for delta in client.watch(job.job_id)]
    assert (caught.value.code, caught.value.reason) == (Code.CANCELLED, "CANCELLED")


async def test_the_fleet_is_listed(client: AsyncClient) -> None:
    assert [model.name for model in await client.models()] == ["echo"]
    assert [worker.worker_id for worker in await client.workers()] == ["played-1"]


async def test_leaving_a_stream_cancels_its_job(client: AsyncClient, worker: Worker) -> None:
    stream = client.generate("echo", "hello")
    first = asyncio.ensure_future(anext(stream))
    held = await worker.take()
    await held.emit("one")
    await first
    await stream.aclose()
    assert (await worker.ending(held.lease.ref, within_s=1)).reason == "CANCELLED"


async def test_cancelling_the_task_that_reads_a_stream_cancels_its_job(
    served: Frontend, client: AsyncClient, worker: Worker
) -> None:
    task = asyncio.ensure_future(client.generate_text("echo", "hello"))
    held = await worker.take()
    await eventually(lambda: len(served.interest) == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await worker.ending(held.lease.ref, within_s=1)).reason == "CANCELLED"
    await eventually(lambda: len(served.interest) == 0)


async def test_errors_come_back_as_the_tree_that_the_service_raised(client: AsyncClient, worker: Worker) -> None:
    with pytest.raises(millrace.InvalidRequest) as invalid:
        await client.generate_text("echo", "", temperature=-1)
    assert [violation.field for violation in invalid.value.violations] == ["text", "sampling.temperature"]
    with pytest.raises(millrace.NotFound) as unknown:
        await client.generate_text("nobody", "hello")
    assert unknown.value.reason == "MODEL_UNKNOWN"
    with pytest.raises(millrace.NotFound):
        await client.get("nothing")
    first = asyncio.ensure_future(client.generate_text("echo", "hello", job_id="a"))
    held = await worker.take()
    with pytest.raises(millrace.AlreadyExists):
        await client.generate_text("echo", "other", job_id="a")
    await held.end(Ending(code=Code.INTERNAL, reason="POISON_JOB", message="m"))
    with pytest.raises(millrace.JobFailed) as failed:
        await first
    assert (failed.value.code, failed.value.reason, failed.value.message) == (Code.INTERNAL, "POISON_JOB", "m")


async def test_a_full_service_is_waited_for_only_where_the_caller_asks(redis_url: str, worker: Worker) -> None:
    async with (
        frontend(redis_url, max_waiting_jobs=1) as served,
        AsyncClient(served.grpc_address) as hasty,
        AsyncClient(served.grpc_address, retry_exhausted=True) as patient,
    ):
        await hasty.submit("echo", "first")
        with pytest.raises(millrace.Exhausted) as caught:
            await hasty.generate_text("echo", "hello")
        assert (caught.value.reason, caught.value.retry_after_s) == ("QUEUE_FULL_JOBS", 1.0)
        waiting = asyncio.ensure_future(patient.generate_text("echo", "hello"))
        await worker.take()
        await (await worker.take()).emit("all", last=True)
        assert (await waiting).text == "all"


async def test_a_tenant_sees_its_own_jobs(served: Frontend, worker: Worker) -> None:
    async with AsyncClient(served.grpc_address, tenant="blue") as blue, AsyncClient(served.grpc_address) as other:
        await blue.submit("echo", "hello", job_id="a")
        assert (await blue.get("a")).job_id == "a"
        with pytest.raises(millrace.NotFound):
            await other.get("a")


async def test_a_job_with_a_resume_window_is_kept_for_a_client_that_lost_its_frontend(
    redis_url: str, worker: Worker
) -> None:
    async with frontend(redis_url) as served, AsyncClient(served.grpc_address, retry_s=0) as client:
        reading = asyncio.ensure_future(client.generate_text("echo", "hello", job_id="a"))
        held = await worker.take()
        served.stop()
        with pytest.raises(millrace.Unavailable) as caught:
            await reading
    assert caught.value.reason == "DRAINING"
    record = await worker.queue.inspect(held.lease.ref)
    assert record is not None
    assert record.state is State.RUNNING


def test_options_land_where_the_proto_has_them() -> None:
    made = make_request(
        "m",
        "p",
        {
            "model_version": "2",
            "top_k": 3,
            "logit_bias": {1: 2.0},
            "stop_strings": ["x"],
            "logprobs": 0,
            "choices": ["a", "b"],
        },
    )
    expected = GenerateRequest(model="m", model_version="2", text="p")
    expected.sampling.top_k = 3
    expected.sampling.logit_bias[1] = 2.0
    expected.stopping.stop_strings.append("x")
    expected.reporting.logprobs = 0
    expected.output_format.choices.texts.extend(["a", "b"])
    assert made == expected
    with pytest.raises(TypeError, match="temprature"):
        make_request("m", "p", {"temprature": 1})  # type: ignore[typeddict-unknown-key]


async def test_a_client_that_was_not_opened_says_so() -> None:
    with pytest.raises(RuntimeError, match="async with"):
        await AsyncClient("127.0.0.1:1").models()
