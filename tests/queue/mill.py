"""A worker that works at a known rate, by the test's clock."""

from dataclasses import dataclass, field

from millrace.queue.types import Emission, Ending, Lease, Verdict
from tests.queue.bench import MODEL, Bench, result

TICK_MS = 100


@dataclass(slots=True)
class _Job:
    lease: Lease
    done: int = 0


@dataclass(slots=True)
class Mill:
    """`slots` jobs at once, each worth `cost`, one of it a tick: so 10 · slots a second."""

    bench: Bench
    slots: int = 4
    cost: int = 10
    running: list[_Job] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    """The jobs' names, in the order in which they ended."""

    async def work(self, seconds: float) -> None:
        for _ in range(round(1000 * seconds / TICK_MS)):
            await self._tick()

    async def _tick(self) -> None:
        await self._take()
        self.bench.clock.now += TICK_MS
        if self.running:
            await self._emit()
        await self.bench.queue.reap(MODEL)
        await self._take()

    async def _take(self) -> None:
        room = self.slots - len(self.running)
        if room:
            self.running += [_Job(lease) for lease in await self.bench.take("mill", room, alone=not self.running)]

    async def _emit(self) -> None:
        verdicts = await self.bench.emit(*(self._advance(job) for job in self.running))
        kept = [job for job, verdict in zip(self.running, verdicts, strict=True) if verdict is Verdict.OK]
        self.finished += [job.lease.ref.job for job in kept if job.done == self.cost]
        self.running = [job for job in kept if job.done < self.cost]

    def _advance(self, job: _Job) -> Emission:
        job.done += 1
        return result(job.lease, job.done, cost=job.done, ending=Ending() if job.done == self.cost else None)
