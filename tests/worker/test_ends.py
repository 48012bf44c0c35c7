"""However a job ends, its life is told once, whoever reaps."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import pytest
from structlog.testing import capture_logs

from millrace.errors import Code
from millrace.queue import Ending, JobQueue, JobRef, Limits, Submission
from millrace.telemetry import tell_ended_job
from millrace.v1.generation_pb2 import GenerateRequest, Stopping
from tests.eventually import eventually
from tests.worker.bench import MODEL, Bench, of
from tests.worker.counting import CountingEngine

Way = Callable[[Bench, JobRef], Awaitable[None]]
CANCELLED = Ending(code=Code.CANCELLED, reason="CANCELLED")


async def submit(bench: Bench, tokens: int, text: str, timeout_ms: int) -> JobRef:
    request = GenerateRequest(model="counting", text=text, stopping=Stopping(max_tokens=tokens))
    submission = Submission(
        ref=JobRef(MODEL, "acme", "job"),
        fingerprint="f" * 32,
        payload=request.SerializeToString(),
        cost=tokens,
        watcher="test",
        retained=True,
        timeout_ms=timeout_ms,
        trace="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
    )
    return await bench.queue.submit(submission)


async def run(bench: Bench, ref: JobRef) -> None:
    async with bench.host(CountingEngine()):
        await eventually(lambda: bench.ended(ref))
        await asyncio.sleep(0)


async def run_and(bench: Bench, ref: JobRef, then: Way) -> None:
    async with bench.host(CountingEngine()) as host:
        await eventually(lambda: of(host, ref))
        await then(bench, ref)
        await eventually(lambda: of(host, ref) is None)


async def cancel(bench: Bench, ref: JobRef) -> None:
    await asyncio.gather(*(bench.queue.end(ref, CANCELLED) for _ in range(2)))


async def abandon(bench: Bench, ref: JobRef) -> None:
    await bench.queue.unwatch("test", [ref])


async def wait(bench: Bench, ref: JobRef) -> None:
    """For whoever ends it."""


async def cancel_while_it_runs(bench: Bench, ref: JobRef) -> None:
    await run_and(bench, ref, cancel)


async def abandon_while_it_runs(bench: Bench, ref: JobRef) -> None:
    await run_and(bench, ref, abandon)


async def run_out_of_time(bench: Bench, ref: JobRef) -> None:
    await run_and(bench, ref, wait)


async def lose_its_request(bench: Bench, ref: JobRef) -> None:
    await bench.calls.delete(f"{MODEL.base}payload:{ref.job}:{'f' * 32}")
    await run(bench, ref)


async def kill_its_workers(bench: Bench, ref: JobRef) -> None:
    short = JobQueue(bench.calls, Limits(lease_ms=100))
    for number in range(3):
        await eventually(partial(taken, short, number))


async def taken(queue: JobQueue, number: int) -> bool:
    """As a worker that dies at once."""
    for job in await queue.reap(MODEL):
        tell_ended_job(job)
    return bool((await queue.take(MODEL, f"w{number}", 1, jobs=1, cost=1e9, alone=True)).leases)


@pytest.mark.parametrize(
    ("way", "reason", "tokens", "text", "timeout_ms"),
    [
        (run, "", 3, "count", 60_000),
        (run, "REFUSED", 3, "refuse", 60_000),
        (cancel, "CANCELLED", 3, "count", 60_000),
        (cancel_while_it_runs, "CANCELLED", 100_000, "count", 60_000),
        (wait, "DEADLINE_EXCEEDED", 3, "count", 1),
        (run_out_of_time, "DEADLINE_EXCEEDED", 100_000, "count", 200),
        (abandon, "ABANDONED", 3, "count", 60_000),
        (abandon_while_it_runs, "ABANDONED", 100_000, "count", 60_000),
        (lose_its_request, "JOB_INCOMPLETE", 3, "count", 60_000),
        (kill_its_workers, "POISON_JOB", 3, "count", 60_000),
    ],
)
async def test_a_jobs_life_is_told_once(
    bench: Bench, way: Way, reason: str, tokens: int, text: str, timeout_ms: int
) -> None:
    with capture_logs() as events:
        ref = await submit(bench, tokens, text, timeout_ms)
        await way(bench, ref)

        async def told() -> bool:
            for ends in await asyncio.gather(*(bench.queue.reap(MODEL) for _ in range(3))):
                for job in ends:
                    tell_ended_job(job)
            return any(event["event"] == "job.ended" for event in events)

        await eventually(told)
        await told()
    (event,) = [event for event in events if event["event"] == "job.ended"]
    record = await bench.record(ref)
    assert record.ending is not None
    assert (event["reason"], event["code"]) == (reason, record.ending.code.name)
    assert (event["job_id"], event["tenant"], event["model"], event["task"]) == ("job", "acme", str(MODEL), "generate")
    assert (event["attempts"], event["results"]) == (record.attempts, record.last_offset)
    assert event["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
