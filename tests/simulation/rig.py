"""Runs schedules one after the other on one server."""

import asyncio
import gc
from collections import Counter
from dataclasses import dataclass
from itertools import count

from millrace.queue import scripts
from tests.simulation.loop import VirtualLoop
from tests.simulation.network import LinkedRedis
from tests.simulation.schedule import Schedule
from tests.simulation.store import Store
from tests.simulation.trace import Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What became of one schedule; `error` is None where every promise held."""

    seed: str
    error: Exception | None
    virtual_s: float
    trace: list[str]


class Rig:
    """Clients and a server, reused by all schedules. `clocked_scripts` must be in force."""

    def __init__(self, store: Store) -> None:
        self.counts = Counter[str]()
        self._store = store
        sources = {path.stem: scripts.source(path.stem) for path in sorted(scripts.FOLDER.glob("*.lua"))}
        self._texts = [text for text, _ in sources.values()]
        self._names = {known: name for name, (text, sha) in sources.items() for known in (text, sha)}
        self._clients: list[LinkedRedis] = []

    def run(self, seed: str, *, trace: bool = False) -> Ran:
        """The schedule of this seed: the same at every run."""
        self._store.reset(self._texts)
        told, loop = Trace(wanted=trace), VirtualLoop()
        gc.disable()
        try:
            error = loop.run_until_complete(self._run(seed, told))
            return Ran(seed=seed, error=error, virtual_s=loop.time(), trace=told.lines)
        finally:
            gc.enable()
            loop.close()

    async def _run(self, seed: str, trace: Trace) -> Exception | None:
        numbers = count()
        schedule = Schedule(self._store, self._names, lambda: self._client(next(numbers)), seed, self.counts, trace)
        try:
            await schedule.run()
        except Exception as error:
            return error
        finally:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
        return None

    def _client(self, number: int) -> LinkedRedis:
        """Making a client costs more than many calls."""
        while number >= len(self._clients):
            self._clients.append(LinkedRedis(protocol=3))
        return self._clients[number]
