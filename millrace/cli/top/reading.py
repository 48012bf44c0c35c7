"""Asking a service how it is: FleetService of one frontend, /metrics of all. Silence is told, not raised."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from millrace import AsyncClient
from millrace.errors import MillraceError
from millrace.scrape import Samples, scrape
from millrace.v1.fleet_pb2 import Model, Worker

ANSWER_S = 1.5
"""How long one frontend is waited for; without Redis it answers a scrape after 0.8 s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scraped:
    """What one frontend said at /metrics, or why it said nothing."""

    at_s: float
    samples: Samples | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """What one frontend said of all models and workers."""

    at_s: float
    models: Sequence[Model]
    workers: Sequence[Worker]


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Times are of the monotonic clock."""

    at_s: float
    fleet: Fleet | None
    """The last that was heard: older than the snapshot where nobody tells now."""
    fleet_problem: str = ""
    """Why nobody tells of the fleet now."""
    frontends: Mapping[str, Scraped]
    """By HTTP address, in the order given."""

    @property
    def reached(self) -> bool:
        """Whether anybody has answered."""
        return not self.fleet_problem or any(scraped.samples for scraped in self.frontends.values())


class Reader:
    """Asks these frontends, over channels that stay. FleetService's answer is the same on each: it asks the one that
    answered last, and the others only where that one fails."""

    def __init__(self, clients: Sequence[AsyncClient], http: Sequence[str]) -> None:
        self._clients = clients
        self._http, self._first = http, 0
        self._fleet: Fleet | None = None
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        for client in self._clients:
            await self._stack.enter_async_context(client)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def read(self) -> Snapshot:
        """Takes `ANSWER_S` for those that hang; raises nothing for those that do not answer."""
        scraping = asyncio.gather(*map(_scrape, self._http))
        problem, scraped = await asyncio.gather(self._ask_fleet(), scraping)
        frontends = dict(zip(self._http, scraped, strict=True))
        return Snapshot(at_s=time.monotonic(), fleet=self._fleet, fleet_problem=problem, frontends=frontends)

    async def _ask_fleet(self) -> str:
        """Why nobody answers; empty where somebody has."""
        problem = ""
        for turn in range(len(self._clients)):
            index = (self._first + turn) % len(self._clients)
            try:
                async with asyncio.timeout(ANSWER_S):
                    self._fleet = await _ask(self._clients[index])
            except MillraceError as error:
                problem = error.message
            except TimeoutError:
                problem = f"no answer within {ANSWER_S:g} s"
            else:
                self._first = index
                return ""
        return problem


async def _ask(client: AsyncClient) -> Fleet:
    models, workers = await asyncio.gather(client.models(), client.workers())
    return Fleet(at_s=time.monotonic(), models=models, workers=workers)


async def _scrape(address: str) -> Scraped:
    try:
        samples = await scrape(address, ANSWER_S)
    except OSError as error:
        return Scraped(at_s=time.monotonic(), problem=error.strerror or str(error))
    return Scraped(at_s=time.monotonic(), samples=samples)
