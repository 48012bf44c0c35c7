"""`durability=replicated`: nothing is answered before a replica has it."""

import asyncio
from collections.abc import AsyncIterator

import grpc.aio
import pytest
from redis.asyncio import Redis

from millrace.queue import End, Ending, JobRef, Replicated, Result, connect
from millrace.queue import history as running
from millrace.queue.durability import chained
from millrace.v1.generation_pb2 import GenerateRequest, GenerateResponse
from millrace.v1.generation_pb2_grpc import TextGenerationServiceStub
from millrace.v1.job_pb2 import JobOptions
from millrace.v1.job_service_pb2 import SubmitJobRequest
from millrace.v1.job_service_pb2_grpc import JobServiceStub
from tests.eventually import eventually
from tests.frontend.playing import HISTORY_TAG, MODEL, Generation, Worker, frontend, reason, request
from tests.processes import Valkey
from tests.proxy import Proxy


@pytest.fixture
async def primary() -> AsyncIterator[Valkey]:
    async with Valkey("--repl-diskless-sync-delay", "0") as server:
        yield server


@pytest.fixture
async def replica(primary: Valkey) -> AsyncIterator[Valkey]:
    async with Valkey("--replicaof", f"127.0.0.1 {primary.port}") as server, Redis.from_url(server.url) as client:

        async def synchronised() -> bool:
            return bool((await client.info("replication"))["master_link_status"] == "up")

        await eventually(synchronised)
        yield server


@pytest.fixture
async def worker(primary: Valkey, replica: Valkey) -> AsyncIterator[Worker]:
    async with Worker(primary.url) as played:
        yield played


@pytest.fixture
async def channel(primary: Valkey, worker: Worker) -> AsyncIterator[grpc.aio.Channel]:
    async with (
        frontend(primary.url, durability="replicated", outage_s=1.0) as served,
        grpc.aio.insecure_channel(served.grpc_address) as opened,
    ):
        yield opened


@pytest.fixture
def generation(channel: grpc.aio.Channel) -> Generation:
    return TextGenerationServiceStub(channel)


async def text(call: "grpc.aio.UnaryStreamCall[GenerateRequest, GenerateResponse]") -> str:
    """Of the next message."""
    message = await call.read()
    assert isinstance(message, GenerateResponse)
    return message.deltas[0].text


async def test_a_result_waits_for_the_replica(generation: Generation, worker: Worker, replica: Valkey) -> None:
    call = generation.Generate(request())
    held = await worker.take()
    await held.emit("one")
    assert await text(call) == "one"
    replica.pause()
    await held.emit("two", last=True)
    two = asyncio.create_task(text(call))
    done, _ = await asyncio.wait([two], timeout=0.5)
    assert not done
    replica.resume()
    assert await two == "two"
    assert await call.read() is grpc.aio.EOF


async def test_a_job_counts_as_accepted_when_a_replica_has_it(
    channel: grpc.aio.Channel, worker: Worker, replica: Valkey
) -> None:
    jobs = JobServiceStub(channel)
    replica.pause()
    call = jobs.SubmitJob(SubmitJobRequest(generate=request(), job=JobOptions(job_id="j")))
    submitted = asyncio.create_task(call.wait_for_connection())
    await worker.take()
    assert not call.done()
    replica.resume()
    assert (await call).job_id == "j"
    await submitted


async def test_without_any_replica_a_call_fails_in_time(
    generation: Generation, worker: Worker, replica: Valkey
) -> None:
    replica.pause()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await generation.Generate(request()).read()
    replica.resume()
    assert (caught.value.code(), reason(caught.value)) == (grpc.StatusCode.UNAVAILABLE, "NOT_REPLICATED")


def test_of_what_two_primaries_have_told_only_the_chain_counts() -> None:
    old, new = results("a", "b", "c", "d"), results("a", "b", "x", "y", "z")
    end = End(last_offset=5, ending=Ending())
    assert chained([*old[1:], *new[2:], end]) == [*new[1:], end]
    assert chained([*old, End(last_offset=4, ending=Ending()), *new[2:]]) == [*new[:1], old[1], *new[2:]]
    assert chained(old) == old
    assert chained([]) == []


def results(*texts: str) -> list[Result]:
    """As a log has them."""
    made, history = [], running.EMPTY
    for offset, body in enumerate(map(str.encode, texts), 1):
        history = running.extend(history, body)
        made.append(Result(offset=offset, history=history, body=body + HISTORY_TAG + history))
    return made


async def test_what_another_primary_does_not_have_is_not_kept(primary: Valkey, replica: Valkey, worker: Worker) -> None:
    """The connection breaks between the question and the wait, and the next server knows nothing of the job."""
    other_job = JobRef(MODEL, "default", "unknown")
    async with Proxy(f"127.0.0.1:{primary.port}") as proxy, connect(f"redis://{proxy.address}/0") as barriers:
        durability = Replicated(barriers, replicas=1, outage_s=5)
        serving = asyncio.create_task(durability.run())
        replica.pause()
        answer = asyncio.create_task(durability.holds(other_job))
        await eventually(lambda: bool(proxy._writers))
        proxy.break_connections()
        replica.resume()
        assert await answer is False
        serving.cancel()
