"""Where a job's time went, for who asks."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx2
import pytest

from millrace import AsyncClient
from millrace.cli.calls import describe_timing
from millrace.v1.job_pb2 import JobOptions
from millrace.v1.job_service_pb2 import CancelJobRequest, GetJobRequest, Job, SubmitJobRequest
from services.worker import preemption
from tests.eventually import eventually
from tests.frontend.playing import Generation, Jobs, Worker, frontend, read, request
from tests.stub_models import write_stub
from tests.worker.rig import Rig

ASKED = (("millrace-flight", "1"),)


@pytest.fixture
async def rig(redis_url: str, tmp_path: Path) -> AsyncIterator[Rig]:
    """One worker, with one place."""
    write_stub(tmp_path, slots=1, step_ms=2)
    async with AsyncExitStack() as stack:
        rig = Rig(redis_url, tmp_path, stack)
        await rig.start()
        yield rig
    await rig.redis.aclose()


async def test_a_job_that_has_not_ended_has_waited_so_long_and_been_held_so_often(jobs: Jobs, worker: Worker) -> None:
    await jobs.SubmitJob(SubmitJobRequest(generate=request(), job=JobOptions(job_id="a")))
    waiting = (await jobs.GetJob(GetJobRequest(job_id="a"))).timing
    assert (waiting.attempts, waiting.HasField("queued")) == (0, False)
    await worker.take()
    running = (await jobs.GetJob(GetJobRequest(job_id="a"))).timing
    assert (running.attempts, running.preemptions, running.HasField("queued")) == (1, 0, True)
    assert not running.HasField("first_output")


async def test_a_job_that_was_never_taken_has_waited_until_its_end(jobs: Jobs) -> None:
    await jobs.SubmitJob(SubmitJobRequest(generate=request(), job=JobOptions(job_id="a")))
    ended = await jobs.CancelJob(CancelJobRequest(job_id="a"))
    assert (ended.state, ended.timing.attempts) == (Job.STATE_CANCELLED, 0)
    assert ended.timing.queued.ToMilliseconds() == ended.end_time.ToMilliseconds() - ended.submit_time.ToMilliseconds()


async def test_only_who_asks_gets_the_flight_record_in_the_trailer(generation: Generation, worker: Worker) -> None:
    for metadata, wanted in ((ASKED, True), ((), False), ((("millrace-flight", "0"),), False)):
        call = generation.Generate(request(), metadata=metadata)
        await (await worker.take()).emit("all", last=True)
        assert await read(call)
        told = dict(await call.trailing_metadata() or ())
        assert ("millrace-flight-bin" in told) == wanted
        assert "millrace-ended" in told


async def test_a_job_that_was_given_back_says_so_wherever_it_is_asked(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preemption, "KEPT_S", 0.01)
    async with frontend(rig.url) as served, AsyncClient(served.grpc_address) as client:
        batch = (await client.submit("stub", "hello", max_tokens=150, priority="batch")).job_id
        await eventually(lambda: started(client, batch))
        urgent = [delta async for delta in client.generate("stub", "now", max_tokens=2, priority="interactive")]
        assert [delta async for delta in client.watch(batch)]
        timing = (await client.get(batch)).timing
    assert (timing.preemptions, timing.attempts, timing.worker_id) == (1, 1, "w1")
    assert urgent[-1].message.timing.preemptions == 0
    assert timing.first_output.ToMicroseconds() > 0
    assert timing.remaining_output.ToMicroseconds() > 0
    assert "preemptions 1, worker w1" in describe_timing(timing)


async def started(client: AsyncClient, job_id: str) -> bool:
    return (await client.get(job_id)).last_offset > 0


async def test_over_http_a_whole_answer_has_the_times_in_a_header_and_a_stream_has_none(rig: Rig) -> None:
    asked, headers = {"model": "stub", "prompt": "hello", "max_tokens": 3}, {"millrace-flight": "1"}
    async with frontend(rig.url, openai=True) as served, httpx2.AsyncClient() as http:
        url = f"http://{served.http_address}/v1/completions"
        whole = await http.post(url, json=asked, headers=headers)
        stream = await http.post(url, json=asked | {"stream": True}, headers=headers)
        plain = await http.post(url, json=asked)
    names = [part.partition(";")[0].strip() for part in whole.headers["server-timing"].split(",")]
    assert names == ["queued", "batching", "first-output", "remaining-output", "attempts", "preemptions"]
    assert "server-timing" not in stream.headers
    assert "server-timing" not in plain.headers
