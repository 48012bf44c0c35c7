"""One address in front of several servers, as a Kubernetes Service is."""

import asyncio
from collections import deque
from collections.abc import Sequence

from tests.proxy import Proxy


class Balancer(Proxy):
    """Each connection goes to the next server that listens, and stays there."""

    def __init__(self, targets: Sequence[str]) -> None:
        super().__init__(targets[0])
        self._targets = deque(targets)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(len(self._targets)):
            host, _, port = self._targets[0].rpartition(":")
            self._targets.rotate(-1)
            if await _listens(host, int(port)):
                self._host, self._port = host, int(port)
                break
        await super()._forward(reader, writer)


async def _listens(host: str, port: int) -> bool:
    try:
        _, probe = await asyncio.open_connection(host, port)
    except OSError:
        return False
    probe.close()
    return True
