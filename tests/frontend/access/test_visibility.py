"""A job is its tenant's alone: to others it is as if it had never been."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import grpc.aio
import httpx2
import pytest

from millrace.oip.inference_pb2_grpc import GRPCInferenceServiceStub
from millrace.queue import State
from millrace.v1.generation_pb2_grpc import TextGenerationServiceStub
from millrace.v1.job_pb2 import JobOptions
from millrace.v1.job_service_pb2 import CancelJobRequest, GetJobRequest, SubmitJobRequest, WatchJobRequest
from millrace.v1.job_service_pb2_grpc import JobServiceStub
from services.frontend.server import Frontend
from tests.eventually import eventually
from tests.frontend.access.tenants import Book, bearer
from tests.frontend.openai.calling import prompt
from tests.frontend.playing import Held, Worker, frontend, read, reason, request, texts
from tests.frontend.tensors import ENTRY, TensorWorker, infer
from tests.frontend.texts import say, streamed

JOB_ID = "secret-plan"
Probe = Callable[["Stranger"], Awaitable[object]]


class Stranger:
    """Somebody of another tenant who knows, or guesses, a job's name and where it stands."""

    def __init__(self, channel: grpc.aio.Channel, http: httpx2.AsyncClient, key: str) -> None:
        self._jobs, self._generation = JobServiceStub(channel), TextGenerationServiceStub(channel)
        self._inference, self._http = GRPCInferenceServiceStub(channel), http
        self._metadata, self._headers = bearer(key), {"authorization": f"Bearer {key}"}

    async def get(self) -> object:
        return await told(self._jobs.GetJob(GetJobRequest(job_id=JOB_ID), metadata=self._metadata))

    async def cancel(self) -> object:
        return await told(self._jobs.CancelJob(CancelJobRequest(job_id=JOB_ID), metadata=self._metadata))

    async def watch(self) -> object:
        return await told(self._jobs.WatchJob(WatchJobRequest(job_id=JOB_ID), metadata=self._metadata).read())

    async def attach(self) -> object:
        asked = request(job=JobOptions(job_id=JOB_ID, after_offset=1))
        return await told(self._generation.Generate(asked, metadata=self._metadata).read())

    async def attach_in_a_stream(self) -> object:
        call = self._inference.ModelStreamInfer(metadata=self._metadata)
        await call.write(say(streamed(), millrace_job_id=JOB_ID, millrace_after_offset=1))
        answer = await call.read()
        call.cancel()
        return answer

    async def resume(self) -> object:
        """As browsers do."""
        return await self._answer("GET", None)

    async def go_on(self) -> object:
        return await self._answer("POST", prompt(stream=True))

    async def cancel_on_the_page(self) -> object:
        headers = self._headers | {"millrace-page": "1"}
        answer = await self._http.post("/page/cancel", params={"job": JOB_ID}, headers=headers)
        return answer.status_code, answer.text, sorted(answer.headers)

    async def _answer(self, method: str, body: dict[str, object] | None) -> object:
        headers = self._headers | {"last-event-id": f"{JOB_ID}.1.{'00' * 8}"}
        answer = await self._http.request(method, "/v1/completions", json=body, headers=headers)
        return answer.status_code, answer.text, sorted(answer.headers)


async def told(call: Awaitable[object]) -> object:
    """All that the caller of a call that fails can see, the time aside."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    error = refused.value
    return error.code(), error.details(), list(error.initial_metadata() or ()), list(error.trailing_metadata() or ())


PROBES: dict[str, Probe] = {
    "get": Stranger.get,
    "cancel": Stranger.cancel,
    "watch": Stranger.watch,
    "attach": Stranger.attach,
    "attach in a stream": Stranger.attach_in_a_stream,
    "resume": Stranger.resume,
    "go on": Stranger.go_on,
    "cancel on the page": Stranger.cancel_on_the_page,
}


@pytest.fixture
async def stranger(served: Frontend, channel: grpc.aio.Channel, blue: str) -> AsyncIterator[Stranger]:
    async with httpx2.AsyncClient(base_url=f"http://{served.http_address}") as http:
        yield Stranger(channel, http, blue)


@pytest.fixture
def blue(book: Book) -> str:
    """Another tenant's key, which may all that can be."""
    return book.add("blue", admin=True)


@pytest.fixture
async def served(redis_url: str, worker: Worker, book: Book, key: str, blue: str) -> AsyncIterator[Frontend]:
    async with frontend(redis_url, api_keys=book.path, openai=True, page=True) as running:
        yield running


async def begin(channel: grpc.aio.Channel, worker: Worker, key: str) -> Held:
    """The job, with a first result."""
    asked = SubmitJobRequest(generate=request(), job=JobOptions(job_id=JOB_ID))
    await JobServiceStub(channel).SubmitJob(asked, metadata=bearer(key))
    held = await worker.take()
    await held.emit("a")
    return held


async def test_nothing_tells_another_tenants_job_from_one_that_never_was(
    channel: grpc.aio.Channel, stranger: Stranger, worker: Worker, key: str
) -> None:
    before = {name: await probe(stranger) for name, probe in PROBES.items()}
    held = await begin(channel, worker, key)
    assert {name: await probe(stranger) for name, probe in PROBES.items()} == before
    await held.emit("b", last=True)
    assert {name: await probe(stranger) for name, probe in PROBES.items()} == before
    assert all("JOB_UNKNOWN" in str(answer) or "job_unknown" in str(answer) for answer in before.values())


async def test_a_job_runs_on_whatever_strangers_do(
    channel: grpc.aio.Channel, stranger: Stranger, worker: Worker, key: str
) -> None:
    held = await begin(channel, worker, key)
    for probe in PROBES.values():
        await probe(stranger)
    record = await worker.queue.inspect(held.lease.ref)
    assert record is not None
    assert record.state is State.RUNNING
    await held.emit("b", last=True)
    watched = JobServiceStub(channel).WatchJob(WatchJobRequest(job_id=JOB_ID), metadata=bearer(key))
    assert [result.generated.deltas[0].text async for result in watched] == ["a", "b"]


async def test_two_tenants_may_use_one_name_for_different_jobs(
    channel: grpc.aio.Channel, worker: Worker, key: str, blue: str, served: Frontend
) -> None:
    generation = TextGenerationServiceStub(channel)
    job = JobOptions(job_id=JOB_ID)
    calls = {
        tenant: generation.Generate(request(text=tenant, job=job), metadata=bearer(secret))
        for tenant, secret in (("acme", key), ("blue", blue))
    }
    for held in await worker.take_all(2):
        assert held.request.text == held.lease.ref.tenant
        await held.emit(held.lease.ref.tenant, last=True)
    assert {tenant: texts(await read(call)) for tenant, call in calls.items()} == {"acme": ["acme"], "blue": ["blue"]}


async def test_a_kept_answer_is_given_to_its_tenant_alone_and_not_against_its_policy(
    redis_url: str, book: Book
) -> None:
    keys = [book.add(tenant) for tenant in ("acme", "blue")]
    entry = replace(ENTRY, response_cache=True, digest="a" * 64)
    async with (
        TensorWorker(redis_url, entry) as worker,
        frontend(redis_url, api_keys=book.path, response_cache_bytes=1 << 20) as served,
        grpc.aio.insecure_channel(served.grpc_address) as channel,
    ):
        inference = GRPCInferenceServiceStub(channel)
        for number, key in enumerate(keys):
            call = inference.ModelInfer(infer(), metadata=bearer(key))
            await (await worker.take_tensors()).answer(bytes([number]) * 12)
            assert (await call).raw_output_contents == [bytes([number]) * 12]
            again = await inference.ModelInfer(infer(), metadata=bearer(key))
            assert again.raw_output_contents == [bytes([number]) * 12]
        book.path.write_text(book.path.read_text().replace("  blue:\n", "  blue:\n    models: [other]\n"))

        async def is_refused() -> bool:
            try:
                await inference.ModelInfer(infer(), metadata=bearer(keys[1]))
            except grpc.aio.AioRpcError as error:
                return reason(error) == "MODEL_NOT_ALLOWED"
            return False

        await eventually(is_refused, 2.0)
