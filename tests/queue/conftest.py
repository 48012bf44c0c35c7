"""What the directed tests start from: a queue on every server, by a clock that the test moves."""

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack

import pytest

from tests.queue.bench import Bench
from tests.queue.clock import Clock, ClockedRedis, clocked_scripts
from tests.queue.servers import SERVERS


@pytest.fixture(scope="session", params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a server that the directed tests share."""
    with ExitStack() as stack:
        yield stack.enter_context(SERVERS[request.param]())


@pytest.fixture
async def bench(server: str) -> AsyncIterator[Bench]:
    """An empty queue."""
    clock = Clock()
    with clocked_scripts():
        async with ClockedRedis.on(server, clock) as redis:
            await redis.flushall()
            yield Bench(redis, clock)
