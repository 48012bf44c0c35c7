"""What every test may ask for: a real Valkey."""

from collections.abc import Iterator

import pytest
from redis import Redis

from tests.processes import Valkey


@pytest.fixture(scope="session")
def valkey() -> Iterator[str]:
    """The URL of a Valkey server that the whole session shares."""
    with Valkey() as server:
        yield server.url


@pytest.fixture
def redis_url(valkey: str) -> str:
    """The URL of the shared server, emptied for this test."""
    with Redis.from_url(valkey) as redis:
        redis.flushall()
    return valkey
