"""What a frontend tells of itself, and of what waits by class."""

import asyncio
import urllib.request

from millrace.scrape import Samples, scrape
from millrace.v1.job_pb2 import PRIORITY_BATCH, PRIORITY_INTERACTIVE, PRIORITY_STANDARD, JobOptions
from services.frontend.server import Frontend
from tests.eventually import eventually
from tests.frontend.playing import Generation, Worker, frontend, read, request
from tests.processes import Valkey

TRACE = "0af7651916cd43dd8448eb211c80319c"
OPENMETRICS = "application/openmetrics-text; version=1.0.0"
PRIORITIES = (PRIORITY_BATCH, PRIORITY_STANDARD, PRIORITY_INTERACTIVE)


async def test_whether_it_is_ready_and_what_it_reaches_is_told(served: Frontend) -> None:
    samples = await scrape(served.http_address)
    states = {name: samples.value(f"millrace_frontend_{name}") for name in ("ready", "redis_up", "mailbox_up")}
    assert states == {"ready": 1, "redis_up": 1, "mailbox_up": 1}


async def test_that_redis_is_away_is_told() -> None:
    async with Valkey() as own, frontend(own.url) as served:
        own.kill()

        async def away() -> bool:
            samples = await scrape(served.http_address)
            return "millrace_frontend_redis_up" in samples and not samples.value("millrace_frontend_redis_up")

        await eventually(away)


async def test_what_waits_is_told_by_class_and_under_others_names(served: Frontend, generation: Generation) -> None:
    jobs = [JobOptions(priority=name) for name in PRIORITIES]
    calls = [generation.Generate(request(job=job)) for job in jobs]
    for call in calls:
        await call.initial_metadata()

    async def waiting() -> Samples | None:
        samples = await scrape(served.http_address)
        return samples if samples.value("millrace_queue_waiting_jobs") == 3 else None

    samples = await eventually(waiting)
    costs = samples.by("millrace_queue_waiting_cost", "priority", model="echo/1")
    assert set(costs) == {"interactive", "standard", "batch"}
    assert min(costs.values()) > 0
    assert samples.value("vllm:num_requests_waiting", model_name="echo", version="1") == 3
    assert samples.value("nv_inference_pending_request_count", model="echo", version="1") == 3
    for call in calls:
        call.cancel()


async def test_alarming_reasons_are_there_before_their_first_time(served: Frontend) -> None:
    refused = (await scrape(served.http_address)).by("millrace_frontend_calls_refused_total", "reason")
    assert refused["POISON_JOB"] == refused["HISTORY_DIFFERS"] == 0


async def test_the_first_result_leads_to_the_callers_trace(
    served: Frontend, generation: Generation, worker: Worker
) -> None:
    call = generation.Generate(request(), metadata=(("traceparent", f"00-{TRACE}-b7ad6b7169203331-01"),))
    held = await worker.take()
    await held.emit("a", last=True)
    await read(call)
    asked = urllib.request.Request(f"http://{served.http_address}/metrics", headers={"Accept": OPENMETRICS})
    with await asyncio.to_thread(urllib.request.urlopen, asked) as answer:
        text = answer.read().decode()
    led = [line for line in text.splitlines() if f'# {{trace_id="{TRACE}"}}' in line]
    assert [line.partition("_bucket")[0] for line in led] == ["millrace_frontend_first_result_seconds"]
