"""Calls that share one connection."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from millrace.queue import connect
from millrace.queue.connection import ConnectionLost, Redis
from tests.processes import Valkey
from tests.proxy import Proxy


@pytest.fixture
async def piped(redis_url: str) -> AsyncIterator[Redis]:
    async with connect(redis_url) as redis:
        yield redis


async def connections(redis: Redis) -> int:
    return len(await redis.client_list())


async def test_calls_made_at_once_share_a_connection_and_get_their_own_answers(piped: Redis) -> None:
    before = await connections(piped)
    answers = await asyncio.gather(*(piped.echo(str(number)) for number in range(500)))
    assert answers == [str(number).encode() for number in range(500)]
    assert await connections(piped) == before


async def test_answers_are_parsed_as_redis_py_parses_them(piped: Redis) -> None:
    await piped.hset("h", mapping={"a": 1, "b": 2})
    assert await piped.hgetall("h") == {b"a": b"1", b"b": b"2"}
    assert await piped.ping() is True


async def test_an_error_is_raised_to_its_own_caller_alone(piped: Redis) -> None:
    await piped.set("text", "no list")
    wrong, right = await asyncio.gather(piped.lrange("text", 0, 1), piped.echo("x"), return_exceptions=True)
    assert isinstance(wrong, ResponseError)
    assert right == b"x"


async def test_a_call_that_is_cancelled_leaves_the_others_undisturbed(piped: Redis) -> None:
    calls = [asyncio.ensure_future(piped.echo(str(number))) for number in range(3)]
    await asyncio.sleep(0)
    calls[1].cancel()
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert (answers[0], answers[2]) == (b"0", b"2")
    assert await piped.echo("after") == b"after"


async def test_a_lost_connection_fails_what_waits_and_the_next_call_connects_anew(redis_url: str) -> None:
    target = redis_url.removeprefix("redis://").partition("/")[0]
    async with Proxy(target) as proxy, connect(f"redis://{proxy.address}/0") as redis:
        assert await redis.echo("x") == b"x"
        waiting = [asyncio.ensure_future(redis.blpop(["nothing"], timeout=0)) for _ in range(3)]
        await asyncio.sleep(0.05)
        proxy.break_connections()
        answers = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(answer) for answer in answers] == [ConnectionLost] * 3
        assert await redis.echo("y") == b"y"


async def test_a_server_that_stops_answering_is_noticed() -> None:
    with Valkey() as server:
        async with connect(server.url, timeout_s=0.2) as redis:
            await redis.ping()
            server.pause()
            with pytest.raises(RedisTimeoutError):
                await redis.ping()
            server.resume()
            assert await redis.ping()


async def test_a_server_that_is_not_there_is_said_to_be_away() -> None:
    async with connect("redis://127.0.0.1:1/0") as redis:
        with pytest.raises(RedisConnectionError):
            await redis.ping()


async def test_a_client_that_is_closed_fails_what_waits(redis_url: str) -> None:
    async with connect(redis_url) as redis:
        waiting = asyncio.ensure_future(redis.blpop(["nothing"], timeout=0))
        await asyncio.sleep(0.05)
    with pytest.raises(RedisConnectionError):
        await waiting
