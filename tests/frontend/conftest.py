"""A frontend, a worker and a channel between the test and the frontend."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import grpc.aio
import pytest
from blockbuster import blockbuster_ctx

from millrace.v1.generation_pb2_grpc import TextGenerationServiceStub
from millrace.v1.job_service_pb2_grpc import JobServiceStub
from services.frontend.server import Frontend
from tests.frontend.playing import Generation, Jobs, Worker, frontend


@pytest.fixture(scope="session", autouse=True)
def grpc_stays() -> Iterator[None]:
    """Else gRPC joins its poller, which blocks, wherever the last of an earlier test's channels is collected."""

    async def begin() -> None:
        grpc.aio.init_grpc_aio()

    asyncio.run(begin())
    yield
    grpc.aio.shutdown_grpc_aio()


@pytest.fixture(autouse=True)
def nothing_blocks() -> Iterator[None]:
    """A blocking call below the frontend's code fails the test; what is read from disk once for each process may."""
    with blockbuster_ctx("services.frontend") as guard:
        for function in guard.functions.values():
            function.can_block_in("millrace/queue/scripts.py", "source")
        yield


@pytest.fixture
async def worker(redis_url: str) -> AsyncIterator[Worker]:
    async with Worker(redis_url) as played:
        yield played


@pytest.fixture
async def served(redis_url: str, worker: Worker) -> AsyncIterator[Frontend]:
    """A frontend that knows the model of `worker`."""
    async with frontend(redis_url) as running:
        yield running


@pytest.fixture
async def channel(served: Frontend) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(served.grpc_address) as opened:
        yield opened


@pytest.fixture
def generation(channel: grpc.aio.Channel) -> Generation:
    return TextGenerationServiceStub(channel)


@pytest.fixture
def jobs(channel: grpc.aio.Channel) -> Jobs:
    return JobServiceStub(channel)
