"""A frontend, a worker and a client."""

from collections.abc import AsyncIterator

import pytest

from millrace import AsyncClient
from services.frontend.server import Frontend
from tests.frontend.playing import Worker, frontend


@pytest.fixture
async def worker(redis_url: str) -> AsyncIterator[Worker]:
    async with Worker(redis_url) as played:
        yield played


@pytest.fixture
async def served(redis_url: str, worker: Worker) -> AsyncIterator[Frontend]:
    async with frontend(redis_url) as running:
        yield running


@pytest.fixture
async def client(served: Frontend) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(served.grpc_address, retry_s=5) as opened:
        yield opened
