"""A connection to a server that may be another one tomorrow: held up for a while, cut, pointed elsewhere."""

import asyncio

from tests.proxy import Proxy


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

    async def _hold_up(self, delay_s: float) -> None:
        await super()._hold_up(delay_s)
        await self._open.wait()
