"""TCP proxies on loopback: one whose connections a test can break, and one that loses a Redis server's replies."""

import asyncio
from types import TracebackType
from typing import Self

import hiredis

READ_BYTES = 1 << 16


class Proxy:
    """Forwards to HOST:PORT; `address` is its own."""

    def __init__(self, target: str) -> None:
        self._host, _, port = target.rpartition(":")
        self._port = int(port)
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def break_connections(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._forward, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        self.break_connections()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection(self._host, self._port)
        self._writers |= {writer, upstream_writer}
        for pump in (self._pump(reader, upstream_writer), self._answer(upstream_reader, writer)):
            task = asyncio.create_task(pump)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(READ_BYTES):
                sink.write(data)
                await sink.drain()
        except OSError:
            pass
        finally:
            sink.close()

    async def _answer(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        await self._pump(source, sink)


class LossyProxy(Proxy):
    """Before a Redis server: each `every`-th reply, of all connections together, is lost. The command was carried out,
    and its connection breaks behind the replies before."""

    def __init__(self, url: str, every: int) -> None:
        super().__init__(url.removeprefix("redis://").partition("/")[0])
        self._every = every
        self.replies = self.lost = 0

    @property
    def url(self) -> str:
        return f"redis://{self.address}/0"

    async def _answer(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        parser = hiredis.Reader()
        try:
            while data := await source.read(READ_BYTES):
                whole = 0
                for at in range(len(data)):
                    parser.feed(data, at, 1)
                    if parser.gets() is False:
                        continue
                    self.replies += 1
                    if self.replies % self._every == 0:
                        self.lost += 1
                        sink.write(data[:whole])
                        return
                    whole = at + 1
                sink.write(data)
        except OSError:
            pass
        finally:
            sink.close()
