"""The servers on which the queue must be the same: Valkey, Redis where it is installed, and a cluster of one node."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
from redis import Redis

from tests.processes import Valkey, free_port

SLOTS = 16_384


class RedisServer(Valkey):
    """Debian's redis-server instead of Valkey."""

    def __init__(self, *options: str) -> None:
        """Skips the test where there is none."""
        binary = shutil.which("redis-server")
        if binary is None:
            pytest.skip("no redis-server on PATH")
        super().__init__(*options)
        self._command[0] = binary


@contextmanager
def valkey() -> Iterator[str]:
    with Valkey() as server:
        yield server.url


@contextmanager
def redis() -> Iterator[str]:
    with RedisServer() as server:
        yield server.url


@contextmanager
def cluster() -> Iterator[str]:
    options = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    with Valkey(*options) as server, Redis.from_url(server.url) as client:
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, SLOTS - 1)
        while b"cluster_state:ok" not in client.execute_command("CLUSTER", "INFO", NEVER_DECODE=True):
            pass
        yield server.url


SERVERS: dict[str, Callable[[], AbstractContextManager[str]]] = {"valkey": valkey, "redis": redis, "cluster": cluster}
