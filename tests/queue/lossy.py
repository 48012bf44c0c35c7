"""A proxy before a Redis server that loses replies: the command was carried out, and the connection breaks."""

import asyncio
from types import TracebackType
from typing import Self

import hiredis


class LossyProxy:
    """Loses each `every`-th reply of all connections together."""

    def __init__(self, url: str, every: int) -> None:
        self._host, _, port = url.removeprefix("redis://").partition("/")[0].rpartition(":")
        self._port, self._every = int(port), every
        self._tasks: set[asyncio.Task[None]] = set()
        self.replies = self.lost = 0

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection(self._host, self._port)
        pumps = self._commands(reader, upstream_writer), self._replies(upstream_reader, writer)
        for pump in pumps:
            task = asyncio.create_task(pump)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _commands(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(1 << 16):
                sink.write(data)
        except OSError:
            pass
        finally:
            sink.close()

    async def _replies(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        parser = hiredis.Reader()
        try:
            while data := await source.read(1 << 16):
                parser.feed(data)
                while parser.gets() is not False:
                    self.replies += 1
                    if self.replies % self._every == 0:
                        self.lost += 1
                        return
                sink.write(data)
        finally:
            sink.close()
