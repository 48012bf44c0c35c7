"""What the shell's tests start from."""

from collections.abc import AsyncIterator

import pytest

from tests.worker.bench import Bench


@pytest.fixture
async def bench(redis_url: str) -> AsyncIterator[Bench]:
    bench = Bench(redis_url)
    yield bench
    await bench.calls.aclose()
