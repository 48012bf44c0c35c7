"""What a tenant may do, by its policy."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
import httpx2
import pytest

from millrace.oip.inference_pb2 import (
    ModelConfigRequest,
    ModelInferRequest,
    ModelMetadataRequest,
    ModelReadyRequest,
    RepositoryIndexRequest,
)
from millrace.oip.inference_pb2_grpc import GRPCInferenceServiceStub
from millrace.queue import Priority
from millrace.v1.fleet_pb2 import ListModelsRequest
from millrace.v1.fleet_pb2_grpc import FleetServiceStub
from millrace.v1.generation_pb2_grpc import TextGenerationServiceStub
from millrace.v1.job_pb2 import PRIORITY_BATCH, PRIORITY_INTERACTIVE, PRIORITY_STANDARD, JobOptions
from millrace.v1.job_service_pb2 import SubmitJobRequest
from millrace.v1.job_service_pb2_grpc import JobServiceStub
from tests.eventually import eventually
from tests.frontend.access.issuing import RSA, issue, public, publish
from tests.frontend.access.tenants import Book, bearer
from tests.frontend.openai.calling import prompt
from tests.frontend.playing import Generation, Worker, frontend, reason, request
from tests.frontend.tensors import TensorWorker


class Door:
    """One caller of one frontend."""

    def __init__(self, channel: grpc.aio.Channel, http: httpx2.AsyncClient, key: str) -> None:
        self.metadata, self.http = bearer(key), http
        self.inference = GRPCInferenceServiceStub(channel)
        self.fleet = FleetServiceStub(channel)
        self.jobs = JobServiceStub(channel)
        self.generation: Generation = TextGenerationServiceStub(channel)
        self.headers = {"authorization": f"Bearer {key}"}

    async def submit(self, **fields: object) -> str:
        """Why it is refused; empty where it is not."""
        job = fields.pop("job", None)
        asked = SubmitJobRequest(generate=request(**fields), job=job)  # type: ignore[arg-type]
        try:
            await self.jobs.SubmitJob(asked, metadata=self.metadata)
        except grpc.aio.AioRpcError as error:
            return f"{error.code().name} {reason(error)}"
        return ""


@asynccontextmanager
async def opened(redis_url: str, book: Book, key: str) -> AsyncIterator[Door]:
    async with (
        frontend(redis_url, api_keys=book.path, openai=True) as served,
        grpc.aio.insecure_channel(served.grpc_address) as channel,
        httpx2.AsyncClient(base_url=f"http://{served.http_address}") as http,
    ):
        yield Door(channel, http, key)


@pytest.fixture
async def door(redis_url: str, worker: Worker, book: Book) -> AsyncIterator[Door]:
    """Of a tenant that may use models whose name begins with an e; there is one more."""
    async with TensorWorker(redis_url), opened(redis_url, book, book.add("acme", models=("e*",))) as one:
        yield one


async def test_a_model_that_is_not_allowed_is_refused_whether_it_exists_or_not(door: Door) -> None:
    told = {model: await door.submit(model=model) for model in ("double", "unheard-of")}
    assert set(told.values()) == {"PERMISSION_DENIED MODEL_NOT_ALLOWED"}
    assert await door.submit(model="echo") == ""
    assert await door.submit(model="e-none") == "NOT_FOUND MODEL_UNKNOWN"


async def test_a_model_that_is_not_allowed_is_in_no_list(door: Door) -> None:
    listed = await door.fleet.ListModels(ListModelsRequest(), metadata=door.metadata)
    assert [model.name for model in listed.models] == ["echo"]
    index = await door.inference.RepositoryIndex(RepositoryIndexRequest(), metadata=door.metadata)
    assert {model.name for model in index.models} == {"echo"}
    answer = await door.http.get("/v1/models", headers=door.headers)
    assert [model["id"] for model in answer.json()["data"]] == ["echo"]
    assert (await door.http.get("/v1/models/double", headers=door.headers)).status_code == 404


async def test_nothing_is_told_of_a_model_that_is_not_allowed(door: Door) -> None:
    calls = (
        door.inference.ModelReady(ModelReadyRequest(name="double"), metadata=door.metadata),
        door.inference.ModelMetadata(ModelMetadataRequest(name="double"), metadata=door.metadata),
        door.inference.ModelConfig(ModelConfigRequest(name="double"), metadata=door.metadata),
        door.inference.ModelInfer(ModelInferRequest(model_name="double"), metadata=door.metadata),
    )
    for call in calls:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        assert reason(refused.value) == "MODEL_NOT_ALLOWED"


async def test_a_request_in_a_stream_is_refused_and_the_stream_goes_on(door: Door) -> None:
    call: Any = door.inference.ModelStreamInfer(metadata=door.metadata)
    for model in ("double", "e-none"):
        await call.write(ModelInferRequest(model_name=model))
        answer = await call.read()
        told = answer.infer_response.parameters["millrace_reason"].string_param
        assert told == {"double": "MODEL_NOT_ALLOWED", "e-none": "MODEL_UNKNOWN"}[model]
    await call.done_writing()


async def test_openais_callers_learn_that_a_model_is_not_theirs(door: Door) -> None:
    answer = await door.http.post("/v1/completions", json=prompt(model="double"), headers=door.headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "model_not_allowed")


async def test_a_priority_above_the_tenants_highest_is_refused(redis_url: str, worker: Worker, book: Book) -> None:
    async with opened(redis_url, book, book.add("acme", priority=Priority.STANDARD)) as door:
        for priority, told in (
            (PRIORITY_INTERACTIVE, "PERMISSION_DENIED PRIORITY_NOT_ALLOWED"),
            (PRIORITY_STANDARD, ""),
            (PRIORITY_BATCH, ""),
        ):
            assert await door.submit(job=JobOptions(priority=priority)) == told


async def test_who_may_only_batch_need_not_say_so(redis_url: str, worker: Worker, book: Book) -> None:
    async with opened(redis_url, book, book.add("acme", priority=Priority.BATCH)) as door:
        assert await door.submit() == ""
        assert (await worker.take()).lease.priority is Priority.BATCH


async def test_a_request_larger_than_the_tenants_largest_is_refused(redis_url: str, worker: Worker, book: Book) -> None:
    async with opened(redis_url, book, book.add("acme", max_request_bytes=200)) as door:
        assert await door.submit(text="x" * 100) == ""
        assert await door.submit(text="x" * 300) == "INVALID_ARGUMENT REQUEST_TOO_LARGE"


async def test_a_policy_is_changed_while_the_frontend_runs(redis_url: str, worker: Worker, book: Book) -> None:
    async with opened(redis_url, book, book.add("acme", models=("other",))) as door:
        assert await door.submit() == "PERMISSION_DENIED MODEL_NOT_ALLOWED"
        book.path.write_text(book.path.read_text().replace("other", "echo"))

        async def is_allowed() -> bool:
            return await door.submit() == ""

        await eventually(is_allowed, 2.0)


async def test_a_token_brings_its_tenants_policy_or_that_of_the_unnamed(
    redis_url: str, worker: Worker, book: Book
) -> None:
    book.add("acme", priority=Priority.STANDARD)
    book.path.write_text(book.path.read_text() + "  '*': {models: [other]}\n")
    jwks = publish(book.path.with_name("jwks.json"), public(RSA, kid="one"))
    async with (
        frontend(redis_url, api_keys=book.path, jwks=jwks) as served,
        grpc.aio.insecure_channel(served.grpc_address) as channel,
        httpx2.AsyncClient() as http,
    ):
        known, unnamed = (Door(channel, http, issue(sub=tenant)) for tenant in ("acme", "blue"))
        interactive = JobOptions(priority=PRIORITY_INTERACTIVE)
        assert await known.submit(job=interactive) == "PERMISSION_DENIED PRIORITY_NOT_ALLOWED"
        assert await known.submit() == ""
        assert (await worker.take()).lease.ref.tenant == "acme"
        assert await unnamed.submit() == "PERMISSION_DENIED MODEL_NOT_ALLOWED"
        assert await Door(channel, http, issue(lasts_s=-60)).submit() == "UNAUTHENTICATED TOKEN_EXPIRED"


async def test_a_tenant_has_its_share_by_its_weight(redis_url: str, worker: Worker, book: Book) -> None:
    keys = {"heavy": book.add("heavy", weight=3.0), "light": book.add("light")}
    async with opened(redis_url, book, keys["heavy"]) as heavy, opened(redis_url, book, keys["light"]) as light:
        for _ in range(8):
            assert await heavy.submit() == await light.submit() == ""
        taken = [held.lease.ref.tenant for held in await worker.take_all(8)]
    assert taken.count("heavy") == 6
