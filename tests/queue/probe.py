"""Sees everything that the queue keeps: all keys with their lifetimes, and all messages to frontends."""

import asyncio
from dataclasses import dataclass
from typing import Any, Self

import hiredis
import msgpack
from redis.asyncio import Redis

from millrace.queue import keys, wire
from millrace.queue.types import End, Result

DUMP = """
local all = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
  local kind, content = redis.call('TYPE', key).ok, nil
  if kind == 'hash' then content = redis.call('HGETALL', key)
  elseif kind == 'zset' then content = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
  elseif kind == 'stream' then content = redis.call('XRANGE', key, '-', '+')
  elseif kind == 'list' then content = redis.call('LRANGE', key, 0, -1)
  else content = redis.call('GET', key) end
  table.insert(all, {key, kind, redis.call('PEXPIRETIME', key), content})
end
return cmsgpack.pack(all)
"""


@dataclass(frozen=True, slots=True)
class Key:
    """One key: hashes and zsets as dictionaries, streams as entries; `expire_ms` is -1 where it has no lifetime."""

    expire_ms: int
    content: Any


async def dump(redis: Redis) -> dict[str, Key]:
    """Everything in the server."""
    packed = await Redis.eval(redis, DUMP, 0)
    return {
        name.decode(): Key(expire, _decode(kind, content))
        for name, kind, expire, content in msgpack.unpackb(packed, raw=True, strict_map_key=False) or ()
    }


def _decode(kind: bytes, content: Any) -> Any:
    if kind == b"hash":
        return {name.decode(): value for name, value in _pairs(content)}
    if kind == b"zset":
        return {name.decode(): float(score) for name, score in _pairs(content)}
    if kind == b"stream":
        return [(entry_id, dict(_pairs(fields))) for entry_id, fields in content or ()]
    return content


def _pairs(flat: list[bytes]) -> list[tuple[bytes, bytes]]:
    return list(zip(flat[::2], flat[1::2], strict=True))


class Listener:
    """Subscribes to frontends' mailboxes; `heard` answers what came since it was last asked."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer, self._parser = reader, writer, hiredis.Reader()

    @classmethod
    async def on(cls, url: str, frontends: list[str]) -> Self:
        host, port = url.removeprefix("redis://").split("/")[0].split(":")
        listener = cls(*await asyncio.open_connection(host, int(port)))
        channels = " ".join(keys.mailbox(frontend) for frontend in frontends)
        listener._writer.write(f"SUBSCRIBE {channels}\r\n".encode())
        await listener.heard()
        return listener

    async def heard(self) -> dict[str, list[tuple[str, Result | End]]]:
        """The entries of all messages that were published before this call, by frontend."""
        entries: dict[str, list[tuple[str, Result | End]]] = {}
        self._writer.write(b"PING\r\n")
        while (reply := await self._next())[0] != b"pong":
            if reply[0] == b"message":
                frontend = reply[1].decode().removeprefix(keys.mailbox(""))
                entries.setdefault(frontend, []).extend(wire.decode_mailbox(reply[2]))
        return entries

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()

    async def _next(self) -> Any:
        while (reply := self._parser.gets()) is False:
            self._parser.feed(await self._reader.read(65_536))
        return reply
