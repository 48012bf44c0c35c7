"""One trace of a request, from its caller over frontend and queue to the worker and back."""

import re
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc.aio
import httpx2
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from structlog.testing import capture_logs

from millrace import AsyncClient, tracing
from millrace.errors import Code
from millrace.queue import Ending
from millrace.tracing import export
from millrace.v1.generation_pb2_grpc import TextGenerationServiceStub
from millrace.v1.job_pb2 import JobOptions
from millrace.v1.job_service_pb2 import SubmitJobRequest, WatchJobRequest
from millrace.v1.job_service_pb2_grpc import JobServiceStub
from tests.collector import Collector, Seen, collector
from tests.frontend.playing import Generation, Worker, frontend, read, request
from tests.stub_models import write_stub
from tests.worker.rig import Rig

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE_ID}-{SPAN_ID}-01"
GENERATE = "millrace.v1.TextGenerationService/Generate"


def sending(collected: Collector, ratio: float = 0.0) -> AbstractContextManager[None]:
    """Of the traces that callers have begun, and of so many others; at its end all are there."""
    return tracing.sending("millrace", "test", collected.endpoint, ratio)


@asynccontextmanager
async def calling(redis_url: str) -> AsyncIterator[grpc.aio.Channel]:
    """A frontend of its own: when it has ended, so have the spans of its calls, which their callers do not wait for."""
    async with frontend(redis_url) as served, grpc.aio.insecure_channel(served.grpc_address) as channel:
        yield channel


@pytest.fixture
async def rig(redis_url: str, tmp_path: Path) -> AsyncIterator[Rig]:
    write_stub(tmp_path, step_ms=2)
    async with AsyncExitStack() as stack:
        rig = Rig(redis_url, tmp_path, stack)
        yield rig
    await rig.redis.aclose()


def parents(spans: list[Seen]) -> dict[str, str]:
    """The name of each span's parent, by its own; empty where the parent is none of them."""
    names = {span.span_id: span.name for span in spans}
    return {span.name: names.get(span.parent_id, "") for span in spans}


async def test_a_generation_is_one_trace_from_its_caller_to_the_worker_and_back(rig: Rig) -> None:
    with collector() as collected:
        with sending(collected):
            await rig.start()
            async with frontend(rig.url) as served, AsyncClient(served.grpc_address) as client:
                tracer = TracerProvider(shutdown_on_exit=False).get_tracer("program")
                with tracer.start_as_current_span("program") as program:
                    deltas = [delta async for delta in client.generate("stub", "hello", max_tokens=20)]
        ids = program.get_span_context()
        spans = collected.spans
    assert parents(spans) == {
        GENERATE: "",
        "submit": GENERATE,
        "relay": GENERATE,
        "queue": "submit",
        "lease": "submit",
        "batch": "lease",
        "prefill": "lease",
        "decode": "lease",
    }
    assert {span.trace_id for span in spans} == {trace.format_trace_id(ids.trace_id)}
    served_call, relay, lease = collected.one(GENERATE), collected.one("relay"), collected.one("lease")
    assert served_call.parent_id == trace.format_span_id(ids.span_id)
    assert {"rpc.system.name": "grpc", "rpc.method": GENERATE, "rpc.response.status_code": "OK"}.items() <= (
        served_call.attributes.items()
    )
    assert relay.events == ["first result"]
    assert lease.attributes["millrace.job_id"] == deltas[0].message.job_id
    assert lease.attributes["gen_ai.usage.output_tokens"] == 20
    assert served_call.begin <= collected.one("queue").begin + 1_000_000 <= lease.end <= served_call.end
    assert "hello" not in repr(spans)


async def test_an_exchange_over_http_is_traced_as_well(rig: Rig) -> None:
    asked = {"model": "stub", "prompt": "hello", "max_tokens": 3}
    with collector() as collected:
        with sending(collected):
            await rig.start()
            async with frontend(rig.url, openai=True) as served, httpx2.AsyncClient() as http:
                url = f"http://{served.http_address}/v1/completions"
                good = await http.post(url, json=asked, headers={"traceparent": TRACEPARENT})
                bad = await http.post(url, json=asked | {"model": "no"}, headers={"traceparent": TRACEPARENT})
        assert (good.status_code, bad.status_code) == (200, 404)
        calls = collected.named("POST /v1/completions")
    assert [call.attributes["http.response.status_code"] for call in calls] == [200, 404]
    assert [(call.trace_id, call.parent_id, call.failed) for call in calls] == 2 * [(TRACE_ID, SPAN_ID, False)]
    assert parents(collected.spans)["lease"] == "submit"
    assert calls[1].attributes["millrace.reason"] == "MODEL_UNKNOWN"


@pytest.mark.parametrize(
    "sent",
    [
        (),
        (("traceparent", f"00-{TRACE_ID}-{SPAN_ID}-00"),),
        (("traceparent", f"00-{'0' * 32}-{SPAN_ID}-01"),),
        (("traceparent", f"00-{TRACE_ID.upper()}-{SPAN_ID}-01"),),
        (("traceparent", f"ff-{TRACE_ID}-{SPAN_ID}-01"),),
        (("traceparent", f"{TRACEPARENT}-x"),),
        (("traceparent", "00-" + "9" * 4_000),),
        (("traceparent", "' OR 1=1; --"),),
    ],
)
async def test_what_is_not_sampled_and_what_is_no_traceparent_is_not_traced(
    worker: Worker, generation: Generation, sent: tuple[tuple[str, str], ...]
) -> None:
    with collector() as collected:
        with sending(collected):
            call = generation.Generate(request(), metadata=sent)
            held = await worker.take()
            await held.emit("all", last=True)
            assert [message.deltas[0].text async for message in call] == ["all"]
        assert collected.spans == []
    assert held.lease.trace in ("", f"00-{TRACE_ID}-{SPAN_ID}-00")


async def test_a_frontend_that_sends_no_traces_hands_the_callers_on(worker: Worker, generation: Generation) -> None:
    call = generation.Generate(request(), metadata=(("traceparent", TRACEPARENT),))
    held = await worker.take()
    assert held.lease.trace == TRACEPARENT
    await held.emit("all", last=True)
    assert [message async for message in call]


async def test_so_many_of_the_others_as_the_ratio_says_are_traced(worker: Worker, redis_url: str) -> None:
    with collector() as collected:
        with sending(collected, ratio=1.0):
            async with calling(redis_url) as channel:
                call = TextGenerationServiceStub(channel).Generate(request())
                held = await worker.take()
                await held.emit("all", last=True)
                assert [message async for message in call]
        root = collected.one(GENERATE)
    assert root.parent_id == ""
    assert re.fullmatch(f"00-{root.trace_id}-{collected.one('submit').span_id}-01", held.lease.trace)


async def test_who_comes_back_to_a_job_with_another_trace_is_linked_to_the_jobs(worker: Worker, redis_url: str) -> None:
    other = f"00-{'a' * 32}-{SPAN_ID}-01"
    with collector() as collected:
        with sending(collected):
            async with calling(redis_url) as channel:
                generation, jobs = TextGenerationServiceStub(channel), JobServiceStub(channel)
                job = SubmitJobRequest(generate=request(), job=JobOptions(job_id="a"))
                await jobs.SubmitJob(job, metadata=(("traceparent", TRACEPARENT),))
                held = await worker.take()
                await held.emit("one")
                again = request(job=JobOptions(job_id="a"))
                same = generation.Generate(again, metadata=(("traceparent", TRACEPARENT),))
                await same.read()
                watch = WatchJobRequest(job_id="a", after_offset=1)
                another = jobs.WatchJob(watch, metadata=(("traceparent", other),))
                await another.initial_metadata()
                await held.emit("two", last=True)
                assert [message async for message in another]
                assert await read(same)
        relays = {span.trace_id: span for span in collected.named("relay")}
    assert (relays[TRACE_ID].links, relays[TRACE_ID].events) == ([], ["first result"])
    assert (relays["a" * 32].links, relays["a" * 32].events) == ([TRACE_ID], ["resumed", "first result"])


async def test_a_failure_of_the_service_fails_its_span_and_a_callers_does_not(worker: Worker, redis_url: str) -> None:
    with collector() as collected:
        with sending(collected, ratio=1.0):
            async with calling(redis_url) as channel:
                generation = TextGenerationServiceStub(channel)
                with pytest.raises(grpc.aio.AioRpcError):
                    await read(generation.Generate(request(model="no")))
                call = generation.Generate(request())
                await (await worker.take()).end(Ending(code=Code.INTERNAL, reason="BROKEN"))
                with pytest.raises(grpc.aio.AioRpcError):
                    await read(call)
        wrong, broken = collected.named(GENERATE)
    assert (wrong.failed, wrong.attributes["millrace.reason"]) == (False, "MODEL_UNKNOWN")
    assert (broken.failed, broken.attributes["error.type"]) == (True, "BROKEN")


async def test_a_collector_that_is_away_costs_nothing_and_is_told_of_once(
    worker: Worker, generation: Generation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "EXPORT_S", 0.2)
    with collector() as gone:
        endpoint = gone.endpoint
    with capture_logs() as events, tracing.sending("millrace", "test", endpoint, 1.0):
        for _ in range(3):
            call = generation.Generate(request())
            held = await worker.take()
            await held.emit("all", last=True)
            assert [message async for message in call]
    assert [event["event"] for event in events if event["event"].startswith("traces.")] == ["traces.away"]
