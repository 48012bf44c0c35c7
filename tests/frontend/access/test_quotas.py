"""What a tenant may take holds over all frontends, and nothing of it is lost."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc.aio
import httpx2
import pytest

from millrace.queue import JobRef, keys
from millrace.v1.generation_pb2_grpc import TextGenerationServiceStub
from millrace.v1.job_pb2 import JobOptions
from millrace.v1.job_service_pb2 import CancelJobRequest, SubmitJobRequest
from millrace.v1.job_service_pb2_grpc import JobServiceStub
from tests.eventually import eventually
from tests.frontend.access.tenants import Book, bearer
from tests.frontend.openai.calling import prompt
from tests.frontend.playing import MODEL, Worker, frontend, read, reason, request, trailer


class Side:
    """One frontend, and one tenant's caller of it."""

    def __init__(self, channel: grpc.aio.Channel, http_address: str, key: str) -> None:
        self.metadata, self.http_address, self.key = bearer(key), http_address, key
        self.jobs, self.generation = JobServiceStub(channel), TextGenerationServiceStub(channel)

    async def submit(self, job_id: str = "", **fields: Any) -> str:
        """Why it is refused; empty where it is not."""
        asked = SubmitJobRequest(generate=request(**fields), job=JobOptions(job_id=job_id))
        try:
            await self.jobs.SubmitJob(asked, metadata=self.metadata)
        except grpc.aio.AioRpcError as error:
            return reason(error)
        return ""

    async def generate(self, worker: Worker) -> None:
        """A whole generation, which costs one token in the end."""
        call = self.generation.Generate(request(), metadata=self.metadata)
        await (await worker.take()).emit("a", last=True)
        await read(call)


@asynccontextmanager
async def sides(redis_url: str, book: Book, **policy: Any) -> AsyncIterator[list[Side]]:
    """Two frontends of one tenant with this policy."""
    key = book.add("acme", **policy)
    async with AsyncExitStack() as stack:
        opened = []
        for _ in range(2):
            served = await stack.enter_async_context(frontend(redis_url, api_keys=book.path, openai=True))
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(served.grpc_address))
            opened.append(Side(channel, served.http_address, key))
        yield opened


async def places(worker: Worker) -> int:
    return int(await worker.redis.hlen(f"{keys.quota('acme')}jobs"))


async def test_two_frontends_let_in_as_many_requests_together_as_may(
    redis_url: str, worker: Worker, book: Book
) -> None:
    async with sides(redis_url, book, requests_per_minute=4) as (first, second):
        told = [await (first, second)[number % 2].submit() for number in range(6)]
        assert told == ["", "", "", "", "QUOTA_REQUESTS", "QUOTA_REQUESTS"]


async def test_a_refusal_says_when_to_come_back(redis_url: str, worker: Worker, book: Book) -> None:
    async with sides(redis_url, book, requests_per_minute=1) as (first, second):
        assert await first.submit() == ""
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await second.jobs.SubmitJob(SubmitJobRequest(generate=request()), metadata=second.metadata)
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert 55_000 < int(trailer(refused.value)["grpc-retry-pushback-ms"]) <= 60_000
        async with httpx2.AsyncClient(base_url=f"http://{first.http_address}") as http:
            headers = {"authorization": f"Bearer {first.key}"}
            answer = await http.post("/v1/completions", json=prompt(), headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "quota_requests")
        assert 55 < int(answer.headers["retry-after"]) <= 60


async def test_tokens_are_counted_as_they_were_used_in_the_end(redis_url: str, worker: Worker, book: Book) -> None:
    """Each is estimated to cost 257 tokens, and costs one."""
    async with sides(redis_url, book, tokens_per_minute=300) as (first, second):
        for side in (first, second, first):
            await side.generate(worker)
        assert await second.submit() == ""
        assert await first.submit() == "QUOTA_TOKENS"


async def test_jobs_at_a_time_are_counted_until_their_end_is_seen(redis_url: str, worker: Worker, book: Book) -> None:
    async with sides(redis_url, book, concurrent_jobs=2) as (first, second):
        for _ in range(4):
            await first.generate(worker)
        assert await first.submit("a") == await second.submit("b") == ""
        assert await first.submit() == await second.submit() == "QUOTA_JOBS"
        await second.jobs.CancelJob(CancelJobRequest(job_id="a"), metadata=second.metadata)
        assert await first.submit() == ""


async def test_a_request_that_finds_its_job_takes_nothing(redis_url: str, worker: Worker, book: Book) -> None:
    async with sides(redis_url, book, requests_per_minute=2, concurrent_jobs=1) as (first, second):
        for side in (first, second, first, second):
            assert await side.submit("named") == ""
        assert await second.submit("named", text="another") == "JOB_ID_REUSED"
        await (await worker.take()).emit("a", last=True)
        assert await first.submit("named") == ""


async def test_a_request_that_the_queue_refuses_gets_all_of_it_back(redis_url: str, worker: Worker, book: Book) -> None:
    async with sides(redis_url, book, requests_per_minute=2, concurrent_jobs=5) as (first, _):
        await worker.redis.config_set("maxmemory", "1")
        try:
            for _ in range(4):
                assert await first.submit() not in ("", "QUOTA_REQUESTS")
        finally:
            await worker.redis.config_set("maxmemory", "0")
        assert await places(worker) == 0

        async def is_let_in() -> bool:
            return await first.submit() == ""

        await eventually(is_let_in)


async def test_a_caller_who_leaves_leaves_no_place_taken(redis_url: str, worker: Worker, book: Book) -> None:
    async with sides(redis_url, book, concurrent_jobs=1) as (first, second):
        call = first.generation.Generate(request(), metadata=first.metadata)
        held = await worker.take()
        call.cancel()

        async def is_forgotten() -> bool:
            return await worker.queue.inspect(held.lease.ref) is None

        await eventually(is_forgotten)
        await age(worker, held.lease.ref)
        assert await second.submit() == ""


async def test_a_place_that_nobody_gave_back_is_found(redis_url: str, worker: Worker, book: Book) -> None:
    """As when a frontend dies between a job's end and its settling."""
    async with sides(redis_url, book, concurrent_jobs=1) as (first, second):
        assert await first.submit("lost") == ""
        assert await second.submit() == "QUOTA_JOBS"
        await (await worker.take()).emit("a", last=True)
        await age(worker, JobRef(MODEL, "acme", "lost"))
        assert await second.submit() == ""


async def age(worker: Worker, ref: JobRef) -> None:
    """The job has taken its place a while ago."""
    key, member = f"{keys.quota('acme')}jobs", f"{ref.model}:{ref.job_id}"
    stored: Any = await worker.redis.hget(key, member)
    nonce, taken, *rest = stored.split()
    await worker.redis.hset(key, member, b" ".join([nonce, b"%d" % (int(taken) - 20_000), *rest]))


async def test_who_has_no_quota_is_not_counted(redis_url: str, worker: Worker, book: Book) -> None:
    async with sides(redis_url, book) as (first, _):
        assert await first.submit() == ""
        assert await worker.redis.keys("mr:quota:*") == []
