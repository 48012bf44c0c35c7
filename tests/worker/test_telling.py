"""What a worker tells of its jobs: one event for each life, and the spans of each lease."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from millrace import tracing
from millrace.engine import Work
from millrace.errors import Code
from millrace.queue import Ending, JobRef, Priority, Submission
from millrace.telemetry import prompts
from millrace.v1.generation_pb2 import Conversation, GenerateRequest, Stopping
from millrace.v1.job_pb2 import Timing
from services.worker.telling import MOST_PROMPT_CHARACTERS, read_prompt
from tests.collector import Collector, collector
from tests.eventually import eventually
from tests.worker.bench import MODEL, Bench, of
from tests.worker.counting import CountingEngine

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE_ID}-{SPAN_ID}-01"


@pytest.fixture
def log() -> Iterator[list[EventDict]]:
    with capture_logs() as events:
        yield events


def sending(collected: Collector) -> AbstractContextManager[None]:
    """Every trace, while it is open; at its end all are there."""
    return tracing.sending("worker", "w1", collected.endpoint, 1.0)


def told(log: list[EventDict], event: str = "job.ended") -> list[EventDict]:
    return [entry for entry in log if entry["event"] == event]


async def submit(bench: Bench, tokens: int, *, trace: str = TRACEPARENT, text: str = "count", **options: Any) -> JobRef:
    request = GenerateRequest(model="counting", text=text, stopping=Stopping(max_tokens=tokens))
    submission = Submission(
        ref=JobRef(MODEL, "acme", "job"),
        fingerprint="f" * 32,
        payload=request.SerializeToString(),
        cost=tokens,
        watcher="test",
        retained=True,
        trace=trace,
        **options,
    )
    return await bench.queue.submit(submission)


async def test_a_job_that_succeeds_is_told_once_with_where_its_time_went(bench: Bench, log: list[EventDict]) -> None:
    ref = await submit(bench, 3)
    async with bench.host(CountingEngine()):
        await eventually(lambda: told(log))
    (event,) = told(log)
    assert {name: event[name] for name in ("job_id", "tenant", "model", "task", "code", "reason", "trace_id")} == {
        "job_id": "job",
        "tenant": "acme",
        "model": str(MODEL),
        "task": "generate",
        "code": "OK",
        "reason": "",
        "trace_id": TRACE_ID,
    }
    assert (event["attempts"], event["preemptions"], event["cost"], event["worker_id"]) == (1, 0, 3, "w1")
    assert event["results"] == (await bench.record(ref)).last_offset
    assert event["queued_ms"] >= 0
    assert 0 < event["first_output_ms"] + event["remaining_output_ms"] < 5_000
    recorded = Timing.FromString((await bench.record(ref)).timing)
    assert recorded.first_output.ToMicroseconds() / 1000 == event["first_output_ms"]


async def test_a_job_that_fails_is_told_once_and_its_times_are_none_of_the_clock(
    bench: Bench, log: list[EventDict]
) -> None:
    await submit(bench, 3, text="refuse", trace="")
    async with bench.host(CountingEngine()):
        await eventually(lambda: told(log))
    (event,) = told(log)
    assert (event["code"], event["reason"], event["results"]) == ("INVALID_ARGUMENT", "REFUSED", 0)
    assert (event["first_output_ms"], event["remaining_output_ms"]) == (0, 0)
    assert "trace_id" not in event


async def test_a_job_without_its_request_is_told_once(bench: Bench, log: list[EventDict]) -> None:
    ref = await submit(bench, 3)
    await bench.calls.delete(f"{MODEL.base}payload:{ref.job}:{'f' * 32}")
    async with bench.host(CountingEngine()):
        await eventually(lambda: told(log))
    (event,) = told(log)
    assert (event["code"], event["reason"], event["attempts"]) == ("DATA_LOSS", "JOB_INCOMPLETE", 1)


async def test_who_loses_a_lease_tells_no_end_of_the_job(bench: Bench, log: list[EventDict]) -> None:
    ref = await submit(bench, 100_000)
    async with bench.host(CountingEngine()) as host:
        await eventually(lambda: of(host, ref))
        await bench.queue.end(ref, Ending(code=Code.CANCELLED, reason="CANCELLED"))
        await eventually(lambda: of(host, ref) is None)
    assert told(log) == []
    (dropped,) = told(log, "job.dropped")
    assert (dropped["verdict"], dropped["job_id"], dropped["trace_id"]) == ("lost", "job", TRACE_ID)


async def test_a_preempted_job_says_so_in_its_event_and_its_flight_record(bench: Bench, log: list[EventDict]) -> None:
    batch = await submit(bench, 300, priority=Priority.BATCH)
    async with bench.host(CountingEngine(slots=1)) as host:
        await eventually(lambda: of(host, batch))
        urgent = await bench.submit(5, priority=Priority.INTERACTIVE)
        await eventually(partial(bench.ended, urgent))
        await eventually(partial(bench.ended, batch))
        await eventually(lambda: len(told(log)) == 2)
    events = {event["job_id"]: event for event in told(log)}
    assert (events["job"]["preemptions"], events["job"]["attempts"]) == (1, 1)
    assert events[urgent.job_id]["preemptions"] == 0
    assert Timing.FromString((await bench.record(batch)).timing).preemptions == 1


async def test_what_was_asked_is_told_where_prompts_may_be_and_nowhere_else(
    bench: Bench, log: list[EventDict], monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = await submit(bench, 1, text="secret " * 1_000)
    async with bench.host(CountingEngine()):
        await eventually(partial(bench.ended, ref))
        await eventually(lambda: told(log))
        assert "secret" not in repr(log)
        monkeypatch.setattr(prompts, "told", True)
        await bench.submit(1, text="secret " * 1_000)
        await eventually(lambda: told(log, "job.asked"))
    (event,) = told(log, "job.asked")
    assert len(event["prompt"]) == MOST_PROMPT_CHARACTERS
    assert event["prompt"].startswith("secret secret")


def test_a_conversation_is_told_with_its_roles_and_bytes_that_are_no_request_not_at_all() -> None:
    conversation = Conversation(messages=[Conversation.Message(role="user", content="hi")])
    request = GenerateRequest(conversation=conversation).SerializeToString()
    assert read_prompt(Work(lease="t", job="j", request=request, task="generate")) == "user: hi"
    assert read_prompt(Work(lease="t", job="j", request=b"\xff\xff", task="generate")) == ""
    assert read_prompt(Work(lease="t", job="j", request=b"\x01\x02", task="transcribe")) == ""


async def test_each_lease_is_a_span_below_the_submission(bench: Bench) -> None:
    with collector() as collected:
        ref = await submit(bench, 50)
        with sending(collected):
            async with bench.host(CountingEngine(), "w1"):
                await eventually(partial(bench.ended, ref))
    lease, queue = collected.one("lease"), collected.one("queue")
    assert (lease.trace_id, lease.parent_id, queue.parent_id) == (TRACE_ID, SPAN_ID, SPAN_ID)
    assert collected.children(lease) == ["batch", "prefill", "decode"]
    assert {"millrace.job_id": "job", "millrace.attempt": 1, "millrace.code": "OK"}.items() <= lease.attributes.items()
    decode = collected.one("decode")
    assert lease.begin <= collected.one("batch").begin <= decode.begin <= decode.end <= lease.end
    assert decode.attributes["millrace.results"] == (await bench.record(ref)).last_offset
    assert not lease.failed


async def test_a_job_that_moves_to_another_worker_stays_in_its_trace(bench: Bench) -> None:
    ref = await submit(bench, 500)
    with collector() as collected, sending(collected):
        async with bench.host(CountingEngine(step_s=0.02), "w1") as first:
            await eventually(lambda: (held := of(first, ref)) and held.proven)
            await first.drain(0)
        async with bench.host(CountingEngine(step_s=0.0001), "w2"):
            await eventually(partial(bench.ended, ref), within_s=10)
            await eventually(lambda: len(collected.named("lease")) == 2)
    before, after = collected.named("lease")
    assert (before.trace_id, after.trace_id, before.events) == (TRACE_ID, TRACE_ID, ["drained"])
    assert [span.attributes["millrace.worker_id"] for span in (before, after)] == ["w1", "w2"]
    assert [span.attributes["millrace.attempt"] for span in (before, after)] == [1, 2]
    assert len(collected.named("queue")) == 1


async def test_a_lost_lease_fails_its_span_and_the_next_attempt_joins_the_trace(
    bench: Bench,
) -> None:
    ref = await submit(bench, 500)
    with collector() as collected:
        with sending(collected):
            async with bench.host(CountingEngine()) as host:
                held = await eventually(lambda: of(host, ref))
                await bench.queue.release(MODEL, [(ref, held.lease.token, 0)])
                await eventually(partial(bench.ended, ref), within_s=10)
        lost, again = collected.named("lease")
    assert (lost.events, lost.failed, again.events, again.failed) == (["lost"], True, [], False)
    assert [span.attributes["millrace.attempt"] for span in (lost, again)] == [1, 2]
    assert lost.trace_id == again.trace_id == TRACE_ID


UNSAMPLED = f"00-{TRACE_ID}-{SPAN_ID}-00"


@pytest.mark.parametrize("trace", ["", UNSAMPLED, f"{TRACEPARENT}; DROP", "\U0001f600"])
async def test_a_job_that_is_not_traced_has_no_spans(bench: Bench, trace: str) -> None:
    with collector() as collected:
        with sending(collected):
            ref = await submit(bench, 3, trace=trace)
            async with bench.host(CountingEngine()):
                await eventually(partial(bench.ended, ref))
        assert collected.spans == []
