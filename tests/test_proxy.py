"""The proxies do what the experiments count on."""

import asyncio
import time

import pytest

from tests.proxy import LossyProxy, Proxy, reply_end

REPLIES = [
    b"+OK\r\n",
    b":1\r\n",
    b"$5\r\na\r\nbc\r\n",
    b"$-1\r\n",
    b"*-1\r\n",
    b"*2\r\n$1\r\na\r\n*1\r\n:2\r\n",
    b"-ERR no\r\n",
]


@pytest.mark.parametrize("reply", REPLIES)
def test_a_reply_ends_where_it_is_whole(reply: bytes) -> None:
    assert [reply_end(reply[:size]) for size in range(len(reply))] == [None] * len(reply)
    assert reply_end(reply + b"+more") == len(reply)


async def pipelined(address: str, commands: int) -> bytes:
    """What comes back for so many PINGs, sent at once."""
    host, _, port = address.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"PING\r\n" * commands)
    try:
        return await reader.readexactly(commands * len(b"+PONG\r\n"))
    except asyncio.IncompleteReadError as short:
        return short.partial
    finally:
        writer.close()


async def test_the_third_reply_is_lost_and_the_connection_with_it(redis_url: str) -> None:
    async with LossyProxy(redis_url, 3) as proxy:
        assert await pipelined(proxy.address, 5) == b"+PONG\r\n" * 2
        assert (proxy.replies, proxy.lost) == (3, 1)
        assert await pipelined(proxy.address, 4) == b"+PONG\r\n" * 2


async def test_an_answer_is_held_back(redis_url: str) -> None:
    target = redis_url.removeprefix("redis://").partition("/")[0]
    async with Proxy(target, delay_s=0.2) as proxy:
        began = time.monotonic()
        assert await pipelined(proxy.address, 1) == b"+PONG\r\n"
        assert time.monotonic() - began >= 0.2


async def test_connections_are_cut(redis_url: str) -> None:
    target = redis_url.removeprefix("redis://").partition("/")[0]
    async with Proxy(target) as proxy:
        host, _, port = proxy.address.partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"PING\r\n")
        assert await reader.readline() == b"+PONG\r\n"
        proxy.break_connections()
        assert await reader.read() == b""
        writer.close()


async def test_a_caller_of_a_server_that_is_away_is_hung_up_on() -> None:
    async with Proxy("127.0.0.1:1") as proxy:
        host, _, port = proxy.address.partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        assert await reader.read() == b""
        writer.close()
