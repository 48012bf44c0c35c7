"""One model of one worker: take → add → step → emit, with renewal beside it.

Three tasks share the jobs at hand: `_take` leases jobs while there is room, `_step` runs the engine while it has jobs,
`_renew` keeps the leases while the engine makes progress. The emitter writes what the steps add.
"""

import asyncio
import time
from collections.abc import Sequence
from functools import partial

import structlog

from millrace.engine import Capacity, Engine, Output, Work
from millrace.errors import Code, Unavailable
from millrace.queue import Emission, Ending, JobQueue, Lease, ModelVersion, Result, Taken, Verdict
from millrace.queue.bell import Bell
from services.worker.device import Device
from services.worker.emitter import Emitter
from services.worker.results import Held

INCOMPLETE = Ending(
    code=Code.DATA_LOSS, reason="JOB_INCOMPLETE", message="the job's request or results are no longer there"
)
RETRY_S = 0.1
LOG_PAGE = 256
TURN_S = 0.02
"""How long one model keeps the device, in whole steps."""
log = structlog.get_logger()


class ModelHost:
    """Serves one model version with one engine."""

    def __init__(
        self, queue: JobQueue, bell: Bell, device: Device, model: ModelVersion, engine: Engine, worker_id: str
    ) -> None:
        self.model, self.held = model, dict[str, Held]()
        self._queue, self._bell, self._device, self._engine, self._worker_id = queue, bell, device, engine, worker_id
        self.emitter = Emitter(queue, model, worker_id, self)
        self._arrivals: dict[str, Work] = {}
        self._aborts: set[str] = set()
        self._active: set[str] = set()
        self._joining = 0
        self._capacity = engine.capacity()
        self._work, self._freed = asyncio.Event(), asyncio.Event()
        self._draining, self._took_last = asyncio.Event(), asyncio.Event()

    async def run(self) -> None:
        """Serves until cancelled. An engine that fails ends the process: its leases lapse, and the work goes on."""
        async with asyncio.TaskGroup() as tasks:
            for task in (self._take(), self._step(), self._renew(), self.emitter.run()):
                tasks.create_task(task)

    @property
    def free_slots(self) -> int:
        return max(self._capacity.jobs - len(self._arrivals) - self._joining, 0)

    async def drain(self, timeout_s: float) -> None:
        """Takes nothing more, lets what runs finish for a while, and hands the rest back."""
        self._draining.set()
        self._freed.set()
        await self._took_last.wait()
        try:
            async with asyncio.timeout(timeout_s):
                while self.held:
                    self._freed.clear()
                    await self._freed.wait()
        except TimeoutError:
            pass
        rest = [(held.lease.ref, held.lease.token, held.cost) for held in self.held.values()]
        for job in list(self.held):
            self.drop(job)
        await self.emitter.flushed()
        if rest:
            log.info("jobs.released", model=str(self.model), jobs=len(rest))
            await self._queue.release(self.model, rest)

    # ── take ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _take(self) -> None:
        sequence, hold = time.time_ns() // 1_000_000, False
        while not self._draining.is_set():
            self._freed.clear()
            if self._room(hold) == 0:
                await self._wait_for_room()
                continue
            try:
                taken = await self._queue.take(
                    self.model,
                    self._worker_id,
                    sequence,
                    jobs=self._room(hold),
                    cost=self._capacity.cost,
                    alone=self._alone(),
                )
                sequence += 1
                hold = taken.hold
                await self._accept(taken)
                if hold:
                    await self._wait_for_room()
                elif not taken.leases:
                    await self._bell.wait(self.model)
            except Unavailable as error:
                log.debug("take.waiting", model=str(self.model), error=error.message)
                await asyncio.sleep(RETRY_S)
        self._took_last.set()

    def _alone(self) -> bool:
        """Whether a job with a strike may run here: beside nothing but jobs that lost theirs here."""
        return all(held.lease.strikes > 0 and held.proven for held in self.held.values())

    def _room(self, hold: bool) -> int:
        suspect = any(held.lease.strikes > 0 and not held.proven for held in self.held.values())
        if suspect:
            return 0
        return min(self.free_slots, 1) if hold else self.free_slots

    async def _wait_for_room(self) -> None:
        try:
            async with asyncio.timeout(1.0):
                await self._freed.wait()
        except TimeoutError:
            pass

    async def _accept(self, taken: Taken) -> None:
        for lease in taken.leases:
            self.held[lease.ref.job] = Held(lease=lease, offset=lease.last_offset, history=lease.history)
        for lease in taken.leases:
            work = await self._load(lease)
            if work is None:
                await self._give_up(lease)
            elif lease.ref.job in self.held:
                self._arrivals[lease.ref.job] = work
                self._work.set()

    async def _load(self, lease: Lease) -> Work | None:
        """The job's request and its log; None where the job has ended meanwhile, or Redis has lost a part of it."""
        while True:
            try:
                request = await self._queue.payload(lease.ref, lease.fingerprint)
                results = await self._read_log(lease)
            except Unavailable as error:
                log.debug("load.waiting", model=str(self.model), error=error.message)
                await asyncio.sleep(RETRY_S)
                continue
            if request is None or len(results) != lease.last_offset:
                log.warning("job.incomplete", job_id=lease.ref.job_id, results=len(results), last=lease.last_offset)
                return None
            return Work(job=lease.ref.job, request=request, results=results, epoch=lease.epoch)

    async def _give_up(self, lease: Lease) -> None:
        """Ends a job that cannot be continued; one that has ended already is left as it is."""
        self.drop(lease.ref.job)
        try:
            await self._queue.emit(self.model, [Emission(ref=lease.ref, token=lease.token, ending=INCOMPLETE)])
        except Unavailable as error:
            log.warning("job.left_to_lapse", job_id=lease.ref.job_id, error=error.message)

    async def _read_log(self, lease: Lease) -> list[bytes]:
        results: list[bytes] = []
        while len(results) < lease.last_offset:
            entries = await self._queue.read(lease.ref, len(results), LOG_PAGE)
            fresh = [entry.body for entry in entries if isinstance(entry, Result) and entry.body is not None]
            if not fresh:
                break
            results += fresh
        return results

    # ── step ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _step(self) -> None:
        while True:
            await self._until_there_is_work()
            await self.emitter.room()
            async with self._device.turn(str(self.model)):
                arrivals, aborts = list(self._arrivals.values()), self._aborts
                self._arrivals, self._aborts = {}, set()
                self._active -= aborts
                self._join(arrivals)
                await self._device.run(partial(self._turn, asyncio.get_running_loop(), arrivals, aborts))

    async def _until_there_is_work(self) -> None:
        while not (self._active or self._arrivals or self._aborts):
            self._work.clear()
            await self._work.wait()

    def _turn(self, loop: asyncio.AbstractEventLoop, arrivals: Sequence[Work], aborts: set[str]) -> None:
        """On the engine thread: who leaves and who joins, then step after step until there is news for the engine."""
        active, until = set(self._active), time.monotonic() + TURN_S
        for job in aborts:
            self._engine.abort(job)
        for work in arrivals:
            self._engine.add(work)
        while True:
            outputs = self._engine.step()
            loop.call_soon_threadsafe(self._receive, outputs, self._engine.capacity())
            active -= {output.job for output in outputs if output.last}
            news = self._arrivals or self._aborts or not self.emitter.has_room
            if news or not active or time.monotonic() > until:
                return

    def _receive(self, outputs: Sequence[Output], capacity: Capacity) -> None:
        """Back on the event loop. What belongs to a job that was dropped meanwhile is left out."""
        self._capacity, self._joining = capacity, 0
        current = [output for output in outputs if output.job in self.held and output.job not in self._aborts]
        self._active -= {output.job for output in outputs if output.last}
        self._freed.set()
        self.emitter.put(current)

    def _join(self, arrivals: Sequence[Work]) -> None:
        self._joining = len(arrivals)
        for work in arrivals:
            self._active.add(work.job)
            if (held := self.held.get(work.job)) is not None:
                held.started_at = time.monotonic()

    # ── keep, lose, end ──────────────────────────────────────────────────────────────────────────────────────────

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._queue.limits.lease_ms / 3000)
            held = [(entry.lease.ref, entry.lease.token) for entry in self.held.values()]
            if not held:
                continue
            try:
                verdicts = await self._queue.renew(self.model, held)
            except Unavailable:
                continue
            for (ref, token), verdict in zip(held, verdicts, strict=True):
                current = self.held.get(ref.job)
                if verdict is not Verdict.OK and current is not None and current.lease.token == token:
                    log.info("job.dropped", job_id=ref.job_id, verdict=verdict.value)
                    self.drop(ref.job)

    def drop(self, job: str) -> None:
        if self.held.pop(job, None) is None:
            return
        self.emitter.forget(job)
        if self._arrivals.pop(job, None) is None:
            self._aborts.add(job)
            self._work.set()
        self._freed.set()

    def ended(self, job: str) -> None:
        self.held.pop(job, None)
        self._freed.set()
