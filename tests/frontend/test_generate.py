"""Generate, from a caller over loopback gRPC to the results log and back."""

import grpc.aio
import pytest

from millrace.errors import Code
from millrace.queue import Ending, JobRef
from millrace.v1.generation_pb2 import GenerateRequest, GenerateResponse, Sampling, Stopping
from millrace.v1.generation_pb2_grpc import TextGenerationServiceStub
from millrace.v1.job_pb2 import JobOptions
from services.frontend.server import Frontend
from tests.eventually import eventually
from tests.frontend.playing import (
    MODEL,
    Generation,
    Worker,
    frontend,
    read,
    reason,
    refusal,
    request,
    texts,
    trailer,
    violated,
)

GRPC_ROUNDING = 1.01
"""gRPC rounds a timeout up on the wire: of 20 s the server sees up to 20.1."""


async def test_results_come_in_order_and_the_trailer_says_that_the_job_ended(
    generation: Generation, worker: Worker
) -> None:
    call = generation.Generate(request("hello"))
    held = await worker.take()
    for number in range(1, 50):
        await held.emit(f"t{number}")
    await held.emit("end", last=True)
    messages = await read(call)
    assert [message.offset for message in messages] == list(range(1, 51))
    assert texts(messages) == [f"t{number}" for number in range(1, 50)] + ["end"]
    assert dict(await call.trailing_metadata())["millrace-ended"] == "1"
    assert dict(await call.initial_metadata())["millrace-job-id"] == held.lease.ref.job_id == messages[0].job_id


async def test_the_worker_gets_the_request_without_its_options_and_with_a_seed(
    generation: Generation, worker: Worker
) -> None:
    call = generation.Generate(request("hello", JobOptions(job_id="a"), stopping=Stopping(max_tokens=7)))
    held = await worker.take()
    assert not held.request.HasField("job")
    assert held.request.sampling.HasField("seed")
    assert held.request.text == "hello"
    assert held.lease.cost == 1 + 7
    call.cancel()


async def test_a_repeated_request_attaches_to_the_first_and_sees_the_same_results(
    generation: Generation, worker: Worker
) -> None:
    first = generation.Generate(request("hello", JobOptions(job_id="a")))
    held = await worker.take()
    await held.emit("one")
    second = generation.Generate(request("hello", JobOptions(job_id="a")))
    await second.read()
    await held.emit("two", last=True)
    assert texts(await read(first)) == ["one", "two"]
    assert texts(await read(second)) == ["two"]
    assert texts(await read(generation.Generate(request("hello", JobOptions(job_id="a"))))) == ["one", "two"]


async def test_a_stream_goes_on_behind_an_offset_on_another_frontend(
    redis_url: str, generation: Generation, worker: Worker
) -> None:
    options = JobOptions(job_id="a")
    options.resume_window.FromSeconds(10)
    call = generation.Generate(request("hello", options))
    held = await worker.take()
    await held.emit("one")
    seen = await call.read()
    assert isinstance(seen, GenerateResponse)
    call.cancel()
    await held.emit("two")
    async with frontend(redis_url) as other, grpc.aio.insecure_channel(other.grpc_address) as channel:
        options.after_offset, options.after_history = seen.offset, seen.history
        resumed = TextGenerationServiceStub(channel).Generate(request("hello", options))
        assert (await resumed.read()) != grpc.aio.EOF
        await held.emit("three", last=True)
        assert texts(await read(resumed)) == ["three"]


@pytest.mark.parametrize(
    ("job", "text", "code", "expected"),
    [
        (JobOptions(job_id="a"), "another", grpc.StatusCode.ALREADY_EXISTS, "JOB_ID_REUSED"),
        (JobOptions(job_id="a", after_offset=1), "another", grpc.StatusCode.ALREADY_EXISTS, "JOB_ID_REUSED"),
        (JobOptions(job_id="b", after_offset=1), "hello", grpc.StatusCode.NOT_FOUND, "JOB_UNKNOWN"),
        (JobOptions(job_id="a", after_offset=2), "hello", grpc.StatusCode.DATA_LOSS, "RESULTS_LOST"),
        (
            JobOptions(job_id="a", after_offset=1, after_history=5),
            "hello",
            grpc.StatusCode.DATA_LOSS,
            "HISTORY_DIFFERS",
        ),
    ],
)
async def test_what_cannot_be_attached_to_is_refused_and_the_first_stream_goes_on(
    generation: Generation,
    worker: Worker,
    job: JobOptions,
    text: str,
    code: grpc.StatusCode,
    expected: str,
) -> None:
    first = generation.Generate(request("hello", JobOptions(job_id="a")))
    held = await worker.take()
    await held.emit("one")
    await first.read()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await read(generation.Generate(request(text, job)))
    assert (caught.value.code(), reason(caught.value)) == (code, expected)
    assert "millrace-ended" not in trailer(caught.value)
    await held.emit("two", last=True)
    assert texts(await read(first)) == ["two"]


@pytest.mark.parametrize(
    ("ending", "code", "expected"),
    [
        (Ending(code=Code.INTERNAL, reason="POISON_JOB", message="m"), grpc.StatusCode.INTERNAL, "POISON_JOB"),
        (Ending(code=Code.UNAVAILABLE, reason="GONE", message="m"), grpc.StatusCode.INTERNAL, "GONE"),
        (
            Ending(code=Code.INVALID_ARGUMENT, reason="TOO_LONG", message="m", field="prompt"),
            grpc.StatusCode.INVALID_ARGUMENT,
            "TOO_LONG",
        ),
    ],
)
async def test_a_jobs_own_ending_reaches_the_caller_and_is_never_unavailable(
    generation: Generation, worker: Worker, ending: Ending, code: grpc.StatusCode, expected: str
) -> None:
    call = generation.Generate(request())
    await (await worker.take()).end(ending)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await read(call)
    assert (caught.value.code(), reason(caught.value)) == (code, expected)
    assert trailer(caught.value)["millrace-ended"] == "1"


async def test_results_too_large_for_the_mailbox_are_read_from_the_log(generation: Generation, worker: Worker) -> None:
    call = generation.Generate(request())
    held = await worker.take()
    large = ["x" * (70 << 10), "small", "y" * (3 << 20), "z" * (65 << 10)]
    for text in large[:-1]:
        await held.emit(text)
    await held.emit(large[-1], last=True)
    assert texts(await read(call)) == large


async def test_an_unknown_model_is_not_found(generation: Generation) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await read(generation.Generate(request(model="nobody")))
    assert (caught.value.code(), reason(caught.value)) == (grpc.StatusCode.NOT_FOUND, "MODEL_UNKNOWN")


async def test_the_highest_version_with_a_ready_worker_is_chosen(redis_url: str, worker: Worker) -> None:
    async with Worker(redis_url, type(MODEL)("echo", "10")) as newer, Worker(redis_url, type(MODEL)("echo", "9")):
        await newer.announce("loading")
        async with frontend(redis_url) as served, grpc.aio.insecure_channel(served.grpc_address) as channel:
            call = TextGenerationServiceStub(channel).Generate(request(job=JobOptions(job_id="a")))
            await call.initial_metadata()
            located = await worker.queue.locate("default", "a")
            assert located is not None
            assert located.ref.model.version == "9"
            call.cancel()


async def test_a_known_model_without_a_worker_is_unavailable(redis_url: str, worker: Worker) -> None:
    await worker.announce("draining")
    async with frontend(redis_url) as served, grpc.aio.insecure_channel(served.grpc_address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await read(TextGenerationServiceStub(channel).Generate(request()))
    assert (caught.value.code(), reason(caught.value)) == (grpc.StatusCode.UNAVAILABLE, "NO_WORKER")


async def test_jobs_wait_for_a_first_worker_for_as_long_as_it_may_take_and_no_longer(
    redis_url: str, worker: Worker
) -> None:
    await worker.announce("draining")
    async with (
        frontend(redis_url, scale_from_zero_s=0.3) as served,
        grpc.aio.insecure_channel(served.grpc_address) as channel,
    ):
        generation = TextGenerationServiceStub(channel)
        early = generation.Generate(request())
        await early.initial_metadata()

        async def refused() -> bool:
            await worker.announce("draining")
            return await refusal(generation) == "NO_WORKER"

        await eventually(refused)
        await (await worker.take()).emit("all", last=True)
        assert texts(await read(early)) == ["all"]
        assert await refusal(generation) == ""


async def test_a_job_that_nobody_can_come_back_for_ends_with_its_calls_deadline(
    generation: Generation, worker: Worker
) -> None:
    call = generation.Generate(request(), timeout=20)
    lease = (await worker.take()).lease
    assert lease.deadline_ms - lease.submit_ms <= 20_000 * GRPC_ROUNDING
    call.cancel()


async def test_a_delivered_job_without_a_name_leaves_nothing_in_redis(generation: Generation, worker: Worker) -> None:
    call = generation.Generate(request())
    held = await worker.take()
    await held.emit("all", last=True)
    await read(call)
    ref: JobRef = held.lease.ref

    async def gone() -> bool:
        return await worker.queue.inspect(ref) is None and await worker.queue.locate("default", ref.job_id) is None

    await eventually(gone)


async def test_a_full_queue_refuses_with_a_time_to_come_back(redis_url: str, worker: Worker) -> None:
    async with (
        frontend(redis_url, max_waiting_jobs=1) as served,
        grpc.aio.insecure_channel(served.grpc_address) as channel,
    ):
        stub = TextGenerationServiceStub(channel)
        waiting = stub.Generate(request())
        await waiting.initial_metadata()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await read(stub.Generate(request()))
        waiting.cancel()
    assert (caught.value.code(), reason(caught.value)) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL_JOBS")


async def test_every_violation_is_told_at_once(generation: Generation) -> None:
    bad = GenerateRequest(sampling=Sampling(temperature=-1, top_p=2), job=JobOptions(job_id="no spaces"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await read(generation.Generate(bad))
    assert violated(caught.value) == ["model", "prompt", "sampling.temperature", "sampling.top_p", "job.job_id"]


async def test_a_tenant_with_an_impossible_name_is_refused(generation: Generation) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await read(generation.Generate(request(), metadata=(("millrace-tenant", "a b"),)))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_the_metrics_count_calls_and_results(served: Frontend, generation: Generation, worker: Worker) -> None:
    call = generation.Generate(request())
    await (await worker.take()).emit("all", last=True)
    await read(call)
    sample = served.metrics.registry.get_sample_value
    labels = {"method": "millrace.v1.TextGenerationService/Generate", "code": "OK"}
    await eventually(lambda: sample("millrace_frontend_calls_total", labels) == 1)
    assert sample("millrace_frontend_results_total") == 1
    assert sample("millrace_frontend_jobs_submitted_total") == 1
