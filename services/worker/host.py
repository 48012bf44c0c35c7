"""One model of one worker: take → add → step → emit, with renewal beside it.

The tasks share the jobs at hand: `_take` leases jobs while there is room and adds them to the engine, each lane of
`_step` runs the engine while it has something to run, `_renew` keeps the leases while the engine makes progress. The
emitter writes what the steps add.
"""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from functools import partial

import structlog

from millrace.engine import Engine, Output, Work
from millrace.errors import Code, Unavailable
from millrace.queue import Emission, Ending, JobQueue, Lease, ModelVersion, Result, Taken, Verdict
from millrace.queue.bell import Bell
from services.worker.device import Device, Turn
from services.worker.emitter import Emitter
from services.worker.results import Held

INCOMPLETE = Ending(
    code=Code.DATA_LOSS, reason="JOB_INCOMPLETE", message="the job's request or results are no longer there"
)
RETRY_S = 0.1
LOG_PAGE = 256
DECODED_HERE_BYTES = 64 << 10
"""What the event loop itself may hand to the engine; more of it would hold up leases and results."""
log = structlog.get_logger()


class ModelHost:
    """Serves one model version with one engine."""

    def __init__(
        self, queue: JobQueue, bell: Bell, device: Device, model: ModelVersion, engine: Engine, worker_id: str
    ) -> None:
        self.model, self.held = model, dict[str, Held]()
        self._queue, self._bell, self._device, self._engine, self._worker_id = queue, bell, device, engine, worker_id
        self.emitter = Emitter(queue, model, worker_id, self)
        self._loading = 0
        self._resting: deque[asyncio.Future[None]] = deque()
        self._news = False
        """Whether there is any that no lane has been told of."""
        self._freed = asyncio.Event()
        self._draining, self._took_last = asyncio.Event(), asyncio.Event()

    async def run(self) -> None:
        """Serves until cancelled. An engine that fails ends the process: its leases lapse, and the work goes on."""
        async with asyncio.TaskGroup() as tasks:
            lanes = [self._step() for _ in range(self._engine.lanes)]
            for task in (self._take(), *lanes, self._renew(), self.emitter.run()):
                tasks.create_task(task)

    @property
    def free_slots(self) -> int:
        return max(self._engine.capacity().jobs - self._loading, 0)

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
        for lease in list(self.held):
            self.drop(lease)
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
                capacity, room = self._engine.capacity(), self._room(hold)
                taken = await self._queue.take(
                    self.model,
                    self._worker_id,
                    sequence,
                    jobs=room,
                    cost=capacity.cost,
                    alone=self._alone(),
                    payload_bytes=capacity.payload_bytes,
                )
                sequence += 1
                hold = taken.hold
                await self._accept(taken)
                if hold:
                    await self._wait_for_room()
                elif len(taken.leases) < room:
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
            self.held[lease.token] = Held(lease=lease, offset=lease.last_offset, history=lease.history)
        self._loading = len(taken.leases)
        try:
            for lease in taken.leases:
                work = await self._load(lease)
                if work is None:
                    await self._give_up(lease)
                else:
                    await self._add(work)
                self._loading -= 1
        finally:
            self._loading = 0
        await asyncio.sleep(0)  # The lanes go first, then whatever is asked of the queue next.

    async def _add(self, work: Work) -> None:
        """To the engine, which decodes it; what is large is decoded on a thread of its own."""
        if len(work.request) + sum(map(len, work.results)) > DECODED_HERE_BYTES:
            await asyncio.to_thread(self._engine.add, work)
        elif work.lease in self.held:
            self._engine.add(work)
        if (held := self.held.get(work.lease)) is None:
            self._engine.abort(work.lease)
        else:
            held.started_at = time.monotonic()
        self._wake()

    async def _load(self, lease: Lease) -> Work | None:
        """The job's request and its log; None where the job has ended meanwhile, or Redis has lost a part of it."""
        while True:
            try:
                request = lease.payload or await self._queue.payload(lease.ref, lease.fingerprint)
                results = await self._read_log(lease)
            except Unavailable as error:
                log.debug("load.waiting", model=str(self.model), error=error.message)
                await asyncio.sleep(RETRY_S)
                continue
            if request is None or len(results) != lease.last_offset:
                log.warning("job.incomplete", job_id=lease.ref.job_id, results=len(results), last=lease.last_offset)
                return None
            return Work(lease=lease.token, job=lease.ref.job, request=request, results=results, epoch=lease.epoch)

    async def _give_up(self, lease: Lease) -> None:
        """Ends a job that cannot be continued; one that has ended already is left as it is."""
        self.drop(lease.token)
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
        """One lane. It rests where a step found nothing to do, until there is news for the engine."""
        while True:
            await self._rest()
            busy = True
            while busy:
                await self.emitter.room()
                async with self._device.turn(str(self.model)) as turn:
                    busy = await turn.run(partial(self._turn, turn, asyncio.get_running_loop()))

    async def _rest(self) -> None:
        if self._news:
            self._news = False
            return
        woken = asyncio.get_running_loop().create_future()
        self._resting.append(woken)
        await woken

    def _wake(self) -> None:
        """Tells one lane that there is news, or the next that is about to rest."""
        while self._resting:
            woken = self._resting.popleft()
            if not woken.done():
                woken.set_result(None)
                return
        self._news = True

    def _turn(self, turn: Turn, loop: asyncio.AbstractEventLoop) -> bool:
        """On a device thread: step after step; false where there is nothing more to run."""
        while (outputs := self._engine.step()) is not None:
            loop.call_soon_threadsafe(self._receive, outputs)
            if not (self.emitter.has_room and turn.goes_on()):
                return True
        return False

    def _receive(self, outputs: Sequence[Output]) -> None:
        """Back on the event loop. What belongs to a lease that was dropped meanwhile is left out."""
        self._freed.set()
        self.emitter.put([output for output in outputs if output.lease in self.held])

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
                if verdict is not Verdict.OK and token in self.held:
                    log.info("job.dropped", job_id=ref.job_id, verdict=verdict.value)
                    self.drop(token)

    def drop(self, lease: str) -> None:
        if self.held.pop(lease, None) is None:
            return
        self.emitter.forget(lease)
        self._engine.abort(lease)
        self._wake()
        self._freed.set()

    def ended(self, lease: str) -> None:
        self.held.pop(lease, None)
        self._freed.set()
