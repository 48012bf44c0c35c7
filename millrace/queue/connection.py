"""How Millrace talks to Redis.

redis-py's defaults resend commands after a lost reply and time out blocking reads; here nothing is resent behind our
back (`repeated` does it, for calls that allow it); calls share one connection (pipe.py), and
blocking readers have connections of their own without a read timeout.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, OutOfMemoryError, ReadOnlyError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from millrace.queue.pipe import ConnectionLost, PipedRedis

CONNECT_S = 2.0
BREAKS = 64
"""Broken connections that one call may meet before the server counts as away."""
AWAY = (RedisConnectionError, RedisTimeoutError, ReadOnlyError, OSError)
"""What a Redis that is away, restarting or demoted raises."""

__all__ = [
    "AWAY",
    "ConnectionLost",
    "NoScriptError",
    "OutOfMemoryError",
    "Redis",
    "RedisError",
    "connect",
    "has_answered",
    "repeated",
]


def connect(url: str, *, timeout_s: float | None = 2.0, max_connections: int = 64) -> Redis:
    """A client for `url` (redis://, rediss:// or unix://). `timeout_s` None is for who blocks: a subscription, or one
    read after the other."""
    client = PipedRedis.from_url(
        url,
        protocol=2,
        socket_timeout=None,
        socket_connect_timeout=CONNECT_S,
        health_check_interval=0,
        retry=Retry(NoBackoff(), 0),
        retry_on_error=[],
        max_connections=max_connections,
        driver_info=None,
        **({} if url.startswith("unix:") else {"socket_keepalive": True}),
    )
    assert isinstance(client, PipedRedis)
    client.timeout_s = timeout_s
    return client


def has_answered(redis: Redis, since: float) -> bool:
    """Whether an answer to any call has come since then, by the monotonic clock."""
    return isinstance(redis, PipedRedis) and redis.answered_at > since


async def repeated(function: Callable[..., Awaitable[Any]], *args: Any, **options: Any) -> Any:
    """Makes a call that may be repeated, and repeats it where its reply was lost: once, or more often where the
    connection broke, since that takes the replies of all calls on it. Raises one of `AWAY` where that does not help."""
    attempts = 0.0
    while True:
        try:
            return await function(*args, **options)
        except AWAY as error:
            attempts += 1 / BREAKS if isinstance(error, ConnectionLost) else 0.5
            if attempts >= 1:
                raise
