"""A frontend that serves OpenAI's API, and a caller of it."""

from collections.abc import AsyncIterator

import pytest

from services.frontend.server import Frontend
from tests.frontend.openai.calling import Caller, caller
from tests.frontend.playing import Worker, frontend


@pytest.fixture
async def served(redis_url: str, worker: Worker) -> AsyncIterator[Frontend]:
    async with frontend(redis_url, openai=True) as running:
        yield running


@pytest.fixture
async def http(served: Frontend) -> AsyncIterator[Caller]:
    async with caller(served.http_address) as opened:
        yield opened
