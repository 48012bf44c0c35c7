"""How Millrace talks to Redis.

redis-py's defaults resend commands after a lost reply and time out blocking reads; here nothing is resent behind our
back (`repeated` does it, for calls that allow it); calls share one connection (pipe.py), and blocking readers have
connections of their own. Where the server is, and how it is proved to be the right one, is said by a URL and a few
files (server.py, dialing.py); behind the URL may be Sentinels (sentinel.py) or a cluster (cluster.py, slots.py).
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from redis.asyncio import Connection, ConnectionPool, Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, OutOfMemoryError, ReadOnlyError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from millrace.queue.cluster import ClusteredRedis
from millrace.queue.dialing import Dial, SocketDial, at, dial_options, tcp_options
from millrace.queue.pipe import ConnectionLost, PipedRedis
from millrace.queue.sentinel import Sentinels
from millrace.queue.server import Address, Server
from millrace.queue.slots import Slots

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
    "Server",
    "connect",
    "has_answered",
    "repeated",
]


def connect(server: Server | str, *, timeout_s: float | None = 2.0, max_connections: int = 64) -> Redis:
    """A client for a server, or for a URL that says all (server.py). `timeout_s` None is for who blocks: a
    subscription, or one read after the other. Raises ValueError where what is said of the server cannot be."""
    server = server if isinstance(server, Server) else Server(url=server)
    place = server.place()
    if place.kind == "unix":
        pool = ConnectionPool(SocketDial, max_connections, path=place.path, **dial_options(place.login, place.db))
        return _piped(pool, timeout_s)
    options = tcp_options(server, place.login, place.db)
    if place.kind == "cluster":
        slots = Slots(place.addresses, dial := _dialling(options))
        pool = ConnectionPool(Dial, max_connections, locate=slots.reference, follows=True, **options)
        return ClusteredRedis(pool, slots, dial, timeout_s)
    if place.kind == "sentinel":
        sentinels = Sentinels(place.addresses, place.primary, _dialling(tcp_options(server, place.sentinel_login)))
        options |= {"locate": sentinels.locate, "follows": True}
    else:
        options |= {"locate": at(place.addresses[0])}
    return _piped(ConnectionPool(Dial, max_connections, **options), timeout_s)


def _piped(pool: ConnectionPool, timeout_s: float | None) -> PipedRedis:
    client = PipedRedis.from_pool(pool)
    assert isinstance(client, PipedRedis)
    client.timeout_s = timeout_s
    return client


def _dialling(options: Mapping[str, Any]) -> Callable[[Address], Connection]:
    """What makes connections to an address."""
    return lambda address: Dial(locate=at(address), **options)


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
