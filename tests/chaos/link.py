"""A connection to a server that may be another one tomorrow: held up for a while, cut, pointed elsewhere."""

import asyncio

from tests.proxy import READ_BYTES, Proxy


class Link(Proxy):
    """What is on its way while it is held is lost when the connections break."""

    def __init__(self, target: str) -> None:
        super().__init__(target)
        self._open = asyncio.Event()
        self._open.set()

    def hold(self) -> None:
        self._open.clear()

    def break_connections(self) -> None:
        super().break_connections()
        self._open.set()

    def point_to(self, target: str) -> None:
        """Cuts all connections; new ones go to another server."""
        self._host, _, port = target.rpartition(":")
        self._port = int(port)
        self.break_connections()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, delay_s: float = 0.0) -> None:
        try:
            while data := await source.read(READ_BYTES):
                await self._open.wait()
                sink.write(data)
                await sink.drain()
        except OSError:
            pass
        finally:
            sink.close()
            self._writers.discard(sink)
