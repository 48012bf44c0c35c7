"""TCP proxies on loopback: one that delays, and whose connections a test can cut; one that loses a Redis server's
replies."""

import asyncio
from types import TracebackType
from typing import Self

READ_BYTES = 1 << 16


class Proxy:
    """Forwards to HOST:PORT; `address` is its own. Each piece of an answer waits for `delay_s`."""

    def __init__(self, target: str, *, delay_s: float = 0.0) -> None:
        self._host, _, port = target.rpartition(":")
        self._port = int(port)
        self.delay_s = delay_s
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
        try:
            upstream_reader, upstream_writer = await asyncio.open_connection(self._host, self._port)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, upstream_writer}
        for pump in (self._pump(reader, upstream_writer), self._answer(upstream_reader, writer)):
            task = asyncio.create_task(pump)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, delay_s: float = 0.0) -> None:
        try:
            while data := await source.read(READ_BYTES):
                await self._hold_up(delay_s)
                sink.write(data)
                await sink.drain()
        except OSError:
            pass
        finally:
            sink.close()
            self._writers.discard(sink)

    async def _hold_up(self, delay_s: float) -> None:
        """Each piece, before it goes on."""
        if delay_s:
            await asyncio.sleep(delay_s)

    async def _answer(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        await self._pump(source, sink, self.delay_s)


class LossyProxy(Proxy):
    """Before a Redis server: each `every`-th reply, of all connections together, is lost. The command was carried out,
    and its connection breaks behind the replies before."""

    def __init__(self, url: str, every: int, *, delay_s: float = 0.0) -> None:
        super().__init__(url.removeprefix("redis://").partition("/")[0], delay_s=delay_s)
        self._every = every
        self.replies = self.lost = 0

    @property
    def url(self) -> str:
        return f"redis://{self.address}/0"

    async def _answer(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        whole = asyncio.StreamReader()
        forwarding = asyncio.create_task(self._pump(whole, sink, self.delay_s))
        rest = b""
        try:
            while data := await source.read(READ_BYTES):
                rest += data
                while (end := reply_end(rest)) is not None:
                    self.replies += 1
                    if self.replies % self._every == 0:
                        self.lost += 1
                        return
                    whole.feed_data(rest[:end])
                    rest = rest[end:]
        except OSError:
            pass
        finally:
            whole.feed_eof()
            await forwarding


def reply_end(data: bytes, at: int = 0) -> int | None:
    """Where the reply (RESP 2) ends that begins at `at`; None where it is not whole yet."""
    line = data.find(b"\r\n", at)
    if line < 0:
        return None
    kind, behind = data[at : at + 1], line + 2
    if kind in b"+-:":
        return behind
    size = int(data[at + 1 : line])
    if kind == b"$":
        behind += size + 2 if size >= 0 else 0
        return behind if behind <= len(data) else None
    for _ in range(size):
        inner = reply_end(data, behind)
        if inner is None:
            return None
        behind = inner
    return behind
