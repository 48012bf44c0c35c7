"""JobService: jobs that outlive their calls."""

import grpc.aio
import pytest

from millrace.queue import Result
from millrace.v1.generation_pb2 import CompletionDelta, GenerateResponse
from millrace.v1.job_pb2 import JobOptions
from millrace.v1.job_service_pb2 import (
    CancelJobRequest,
    GetJobRequest,
    Job,
    JobResult,
    SubmitJobRequest,
    WatchJobRequest,
)
from millrace.v1.tasks_pb2 import EmbedRequest
from services.frontend.jobs import wrapping
from services.frontend.relay import PAGE_ENTRIES
from tests.frontend.playing import Generation, Jobs, Worker, reason, request, trailer, violated


async def watched(call: "grpc.aio.UnaryStreamCall[WatchJobRequest, JobResult]") -> list[JobResult]:
    return [result async for result in call]


async def test_a_job_is_submitted_and_watched_later(jobs: Jobs, worker: Worker) -> None:
    submitted = await jobs.SubmitJob(SubmitJobRequest(generate=request("hello")))
    assert (submitted.state, submitted.model, submitted.attempts) == (Job.STATE_WAITING, "echo", 0)
    assert submitted.deadline_time.ToMilliseconds() - submitted.submit_time.ToMilliseconds() == 600_000
    held = await worker.take()
    await held.emit("one")
    running = await jobs.GetJob(GetJobRequest(job_id=submitted.job_id))
    assert (running.state, running.last_offset, running.attempts) == (Job.STATE_RUNNING, 1, 1)
    await held.emit("two", last=True)
    results = await watched(jobs.WatchJob(WatchJobRequest(job_id=submitted.job_id)))
    assert [result.offset for result in results] == [1, 2]
    assert [result.generated.deltas[0].text for result in results] == ["one", "two"]
    assert [result.history for result in results] == [result.generated.history for result in results]
    ended = await jobs.GetJob(GetJobRequest(job_id=submitted.job_id))
    assert (ended.state, ended.status.code, ended.HasField("expire_time")) == (Job.STATE_SUCCEEDED, 0, True)


async def test_watching_goes_on_behind_an_offset_and_leaves_the_job_running(jobs: Jobs, worker: Worker) -> None:
    submitted = await jobs.SubmitJob(SubmitJobRequest(generate=request("hello"), job=JobOptions(job_id="a")))
    held = await worker.take()
    await held.emit("one")
    first = jobs.WatchJob(WatchJobRequest(job_id="a"))
    seen = await first.read()
    assert isinstance(seen, JobResult)
    first.cancel()
    await held.emit("two")
    rest = jobs.WatchJob(WatchJobRequest(job_id="a", after_offset=1, after_history=seen.history))
    await held.emit("three", last=True)
    assert [result.generated.deltas[0].text for result in await watched(rest)] == ["two", "three"]
    assert submitted.job_id == "a"


async def test_submitting_twice_is_submitting_once(jobs: Jobs, worker: Worker) -> None:
    submission = SubmitJobRequest(generate=request("hello"), job=JobOptions(job_id="a"))
    assert await jobs.SubmitJob(submission) == await jobs.SubmitJob(submission)
    assert (await worker.queue.load(worker.model))["jobs"] == 1


async def test_a_submitted_job_and_a_generate_call_with_its_name_are_the_same_job(
    jobs: Jobs, generation: Generation, worker: Worker
) -> None:
    await jobs.SubmitJob(SubmitJobRequest(generate=request("hello"), job=JobOptions(job_id="a")))
    held = await worker.take()
    await held.emit("all", last=True)
    messages = [message async for message in generation.Generate(request("hello", JobOptions(job_id="a")))]
    assert messages[0].deltas[0].text == "all"


async def test_a_cancelled_job_ends_for_its_watchers(jobs: Jobs, worker: Worker) -> None:
    await jobs.SubmitJob(SubmitJobRequest(generate=request("hello"), job=JobOptions(job_id="a")))
    await worker.take()
    call = jobs.WatchJob(WatchJobRequest(job_id="a"))
    await call.initial_metadata()
    assert (await jobs.CancelJob(CancelJobRequest(job_id="a"))).state == Job.STATE_CANCELLED
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await watched(call)
    assert (caught.value.code(), reason(caught.value)) == (grpc.StatusCode.CANCELLED, "CANCELLED")
    assert trailer(caught.value)["millrace-ended"] == "1"
    assert (await jobs.CancelJob(CancelJobRequest(job_id="a"))).status.code == 1


async def test_another_tenants_job_is_not_found(jobs: Jobs, worker: Worker) -> None:
    await jobs.SubmitJob(SubmitJobRequest(generate=request("hello"), job=JobOptions(job_id="a")))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await jobs.GetJob(GetJobRequest(job_id="a"), metadata=(("millrace-tenant", "other"),))
    assert (caught.value.code(), reason(caught.value)) == (grpc.StatusCode.NOT_FOUND, "JOB_UNKNOWN")


@pytest.mark.parametrize(
    ("submission", "fields"),
    [
        (SubmitJobRequest(), ["task"]),
        (SubmitJobRequest(generate=request("x", JobOptions(job_id="a"))), ["generate.job"]),
        (SubmitJobRequest(generate=request(""), job=JobOptions(job_id="?")), ["generate.text", "job.job_id"]),
        (
            SubmitJobRequest(generate=request("x"), job=JobOptions(job_id="a", after_offset=1)),
            ["job.after_offset"],
        ),
    ],
)
async def test_a_bad_submission_names_its_fields(jobs: Jobs, submission: SubmitJobRequest, fields: list[str]) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await jobs.SubmitJob(submission)
    assert violated(caught.value) == fields


async def test_a_task_that_is_not_served_is_unimplemented(jobs: Jobs) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await jobs.SubmitJob(SubmitJobRequest(embed=EmbedRequest(model="echo", texts=["a"])))
    assert (caught.value.code(), reason(caught.value)) == (grpc.StatusCode.UNIMPLEMENTED, "TASK_UNIMPLEMENTED")


def test_a_wrapped_result_has_these_bytes() -> None:
    body = GenerateResponse(job_id="j", offset=300, deltas=[CompletionDelta(text="hé")], history=0x0807060504030201)
    history = bytes(range(1, 9))
    encoded = wrapping("generate")(Result(offset=300, history=history, body=b""), body.SerializeToString())
    assert encoded.hex() == "08ac0212160a016a10ac021a05120368c3a9" + "390102030405060708" * 2
    assert JobResult.FromString(encoded) == JobResult(offset=300, generated=body, history=0x0807060504030201)


@pytest.mark.parametrize("size", [0, 1, 126, 127, 128, 16_383, 16_384, 3 << 20])
def test_wrapping_is_what_protobuf_would_have_written(size: int) -> None:
    body = GenerateResponse(job_id="j", offset=size + 1, deltas=[CompletionDelta(text="x" * size)])
    expected = JobResult(offset=size + 1, generated=body, history=1)
    encoded = wrapping("generate")(
        Result(offset=size + 1, history=b"\1" + bytes(7), body=b""), body.SerializeToString()
    )
    assert encoded == expected.SerializeToString(deterministic=True)


async def test_a_page_that_holds_nothing_but_a_seal_is_not_the_last(jobs: Jobs, worker: Worker) -> None:
    """Results are so large that a page holds one entry, and the job has changed its worker behind the first page."""
    submitted = await jobs.SubmitJob(SubmitJobRequest(generate=request()))
    held = await worker.take()
    await held.emit("x" * (600 << 10))
    for _ in range(PAGE_ENTRIES):
        await held.emit("small")
    await worker.queue.release(worker.model, [(held.lease.ref, held.lease.token, held.offset)])
    held = await worker.take()
    await held.emit("end", last=True)
    results = await watched(jobs.WatchJob(WatchJobRequest(job_id=submitted.job_id)))
    assert [result.offset for result in results] == list(range(1, PAGE_ENTRIES + 3))
