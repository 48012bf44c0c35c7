"""One model of one worker: take → add → step → emit, with renewal beside it.

The tasks share the jobs at hand: `_take` leases jobs while there is room and adds them to the engine, each lane of
`_step` runs the engine while it has something to run, `_renew` keeps the leases while the engine makes progress. The
emitter writes what the steps add. Where there is no room, `_take` looks whether jobs of a higher class wait, and gives
lower ones back for them.
"""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from functools import partial

import structlog

from millrace.engine import Engine, Output, Work
from millrace.errors import Code, Unavailable
from millrace.queue import Emission, Ending, JobQueue, Lease, ModelVersion, Taken, Verdict
from millrace.queue.bell import Bell
from millrace.telemetry import about
from services.worker import preemption
from services.worker.device import Device, Turn
from services.worker.emitter import Emitter
from services.worker.loading import load
from services.worker.metrics import ModelMetrics
from services.worker.results import Held, timing_of
from services.worker.statistics import Ledger
from services.worker.telling import tell, tell_asked, trace_lease, trace_take

INCOMPLETE = Ending(
    code=Code.DATA_LOSS, reason="JOB_INCOMPLETE", message="the job's request or results are no longer there"
)
RETRY_S = 0.1
ROOM_S = 1.0
"""How long to wait for a place before looking again."""
DECODED_HERE_BYTES = 64 << 10
"""What the event loop itself may hand to the engine; more of it would hold up leases and results."""
DECODED_HERE = ("generate", "infer", "")
"""Tasks whose requests are about as large decoded as encoded; an image, a sound or many texts may be far larger."""
log = structlog.get_logger()


class ModelHost:
    """Serves one model version with one engine."""

    def __init__(
        self,
        queue: JobQueue,
        bell: Bell,
        device: Device,
        model: ModelVersion,
        engine: Engine,
        worker_id: str,
        metrics: ModelMetrics,
    ) -> None:
        self.model, self.held = model, dict[str, Held]()
        self._queue, self._bell, self._device, self._engine, self._worker_id = queue, bell, device, engine, worker_id
        self._metrics = metrics
        self._ledger = Ledger(metrics.totals, generates=not engine.signature.outputs)
        self._renewed_at = 0.0
        self.emitter = Emitter(queue, model, worker_id, self, metrics)
        self._loading = 0
        self._looked_at = 0.0
        metrics.jobs.set_function(lambda: len(self.held))
        metrics.free_slots.set_function(lambda: self.free_slots)
        self._resting: deque[asyncio.Future[None]] = deque()
        self._news = False
        """Whether there is any that no lane has been told of."""
        self._freed = asyncio.Event()
        self._draining, self._took_last, self._closed = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def run(self) -> None:
        """Serves until it is closed, and lets go of the engine then. An engine that fails ends the process: its leases
        lapse, and the work goes on."""
        async with asyncio.TaskGroup() as tasks:
            lanes = [tasks.create_task(self._step()) for _ in range(self._engine.lanes)]
            others = [tasks.create_task(task) for task in (self._take(), self._renew(), self.emitter.run())]
            await self._closed.wait()
            await asyncio.gather(*lanes)
            for task in others:
                task.cancel()
        del self._engine

    @property
    def free_slots(self) -> int:
        return 0 if self._draining.is_set() else max(self._engine.capacity().jobs - self._loading, 0)

    async def step_down(self) -> None:
        """Takes nothing more; returns when no further job can come."""
        self._draining.set()
        self._freed.set()
        await self._took_last.wait()

    async def drain(self, timeout_s: float) -> None:
        """Takes nothing more, lets what runs finish for a while, and hands the rest back."""
        await self.step_down()
        try:
            async with asyncio.timeout(timeout_s):
                while self.held:
                    self._freed.clear()
                    await self._freed.wait()
        except TimeoutError:
            pass
        await self.emitter.written()
        rest = [(held.lease.ref, held.lease.token, held.cost) for held in self.held.values()]
        for lease in list(self.held):
            self.drop(lease, "drained")
        await self.emitter.flushed()
        if rest:
            log.info("jobs.released", model=str(self.model), jobs=len(rest))
            await self._queue.release(self.model, rest)

    def close(self) -> None:
        """Has `run` return as soon as no step runs any more. Called once the host is drained."""
        self._closed.set()
        self._wake_all()

    # ── take ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _take(self) -> None:
        sequence, hold = time.time_ns() // 1_000, False  # higher than that of a host which served the model before
        while not self._draining.is_set():
            self._freed.clear()
            try:
                offered = await self._offer(hold)
                capacity, room = self._engine.capacity(), self._room(hold)
                if room == 0 and not offered:
                    await self._wait_for_room()
                    continue
                taken = await self._queue.take(
                    self.model,
                    self._worker_id,
                    sequence,
                    jobs=room,
                    cost=capacity.cost + min((held.cost for held in offered), default=0),
                    alone=self._alone(),
                    payload_bytes=capacity.payload_bytes,
                    offered=[(held.lease.ref, held.lease.token, held.cost) for held in offered],
                )
                sequence += 1
                hold = taken.hold
                self._give_way(taken.given_back)
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

    def _has_suspect(self) -> bool:
        """Whether a job with a strike runs here that has not had a result yet: nothing joins it."""
        return any(held.lease.strikes > 0 and not held.proven for held in self.held.values())

    def _room(self, hold: bool) -> int:
        if self._has_suspect():
            return 0
        return min(self.free_slots, 1) if hold else self.free_slots

    async def _offer(self, hold: bool) -> list[Held]:
        """The jobs that would give their places to those of a higher class, where there is no other place for them and
        some wait. What the engine gave of them is written by then."""
        now = time.monotonic()
        if hold or self.free_slots or self._has_suspect() or now - self._looked_at < preemption.LOOK_S:
            return []
        lower = preemption.candidates(self.held.values(), now)
        if not lower:
            return []
        self._looked_at = now
        if not await self._queue.is_waited_for(self.model, above=lower[0].lease.priority):
            return []
        await self.emitter.written()
        return preemption.candidates(self.held.values(), time.monotonic())

    def _give_way(self, leases: Sequence[str]) -> None:
        """Others have the places of these jobs; they wait in the queue again."""
        for lease in leases:
            if (held := self.held.get(lease)) is not None:
                log.debug("job.preempted", **about(held.lease.ref, held.lease.trace), offset=held.offset)
                self._metrics.preemptions.inc()
                self.drop(lease, "preempted")

    async def _wait_for_room(self) -> None:
        looks = any(preemption.may_give_way(held) for held in self.held.values())
        try:
            async with asyncio.timeout(preemption.LOOK_S if looks else ROOM_S):
                await self._freed.wait()
        except TimeoutError:
            pass

    async def _accept(self, taken: Taken) -> None:
        for lease in taken.leases:
            self.held[lease.token] = Held(lease=lease, offset=lease.last_offset, history=lease.history)
            self._ledger.taken(lease)
            trace_take(lease)
        self._metrics.taken.inc(len(taken.leases))
        self._loading = len(taken.leases)
        try:
            for lease in taken.leases:
                work = await load(self._queue, lease)
                if work is None:
                    await self._give_up(lease)
                else:
                    tell_asked(lease, work)
                    await self._add(work)
                self._loading -= 1
        finally:
            self._loading = 0
        await asyncio.sleep(0)  # The lanes go first, then whatever is asked of the queue next.

    async def _add(self, work: Work) -> None:
        """To the engine, which decodes it; what is large is decoded on a thread of its own."""
        size = len(work.request) + sum(map(len, work.results))
        if size > DECODED_HERE_BYTES or work.task not in DECODED_HERE:
            await asyncio.to_thread(self._engine.add, work)
        elif work.lease in self.held:
            self._engine.add(work)
        if (held := self.held.get(work.lease)) is None:
            self._engine.abort(work.lease)
        else:
            held.started_at = time.monotonic()
            self._ledger.added(work.lease)
        self._wake()

    async def _give_up(self, lease: Lease) -> None:
        """Ends a job that cannot be continued; one that has ended already is left as it is."""
        held = self.held.get(lease.token) or Held(lease=lease, offset=lease.last_offset, history=lease.history)
        timing = timing_of(held, self._worker_id)
        self._ledger.failed(lease.token)
        self.drop(lease.token, "incomplete")
        end = Emission(ref=lease.ref, token=lease.token, ending=INCOMPLETE, timing=timing.SerializeToString())
        try:
            (verdict,) = await self._queue.emit(self.model, [end])
        except Unavailable as error:
            log.warning("job.left_to_lapse", **about(lease.ref, lease.trace), error=error.message)
            return
        if verdict in (Verdict.OK, Verdict.DUPLICATE):
            ended = held.ended(INCOMPLETE, timing)
            self._metrics.ended(ended)
            tell(ended)

    # ── step ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _step(self) -> None:
        """One lane. It rests where a step found nothing to do, until there is news for the engine."""
        while not self._closed.is_set():
            await self._rest()
            busy = True
            while busy and not self._closed.is_set():
                await self.emitter.room()
                async with self._device.turn(str(self.model)) as turn:
                    busy = await turn.run(partial(self._turn, turn, asyncio.get_running_loop()))

    async def _rest(self) -> None:
        if self._news or self._closed.is_set():
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

    def _wake_all(self) -> None:
        while self._resting:
            self._wake()

    def _turn(self, turn: Turn, loop: asyncio.AbstractEventLoop) -> bool:
        """On a device thread: step after step; false where there is nothing more to run."""
        while (step := self._timed_step()) is not None:
            loop.call_soon_threadsafe(self._receive, *step)
            if not (self.emitter.has_room and turn.goes_on()):
                return True
        return False

    def _timed_step(self) -> tuple[Sequence[Output], float, float] | None:
        """The outputs, and between which times of the monotonic clock they were made."""
        began = time.monotonic()
        outputs = self._engine.step()
        if outputs is None:
            return None
        ended = time.monotonic()
        self._metrics.steps.observe(ended - began)
        return outputs, began, ended

    def _receive(self, outputs: Sequence[Output], began: float, ended: float) -> None:
        """Back on the event loop. What belongs to a lease that was dropped meanwhile is left out."""
        self._freed.set()
        self._ledger.ran(outputs, began, ended)
        for output in outputs:
            if (held := self.held.get(output.lease)) is not None and not held.first_output_at:
                held.started_at = self._ledger.began_at(output.lease) or held.started_at
        self.emitter.put([output for output in outputs if output.lease in self.held])

    # ── keep, lose, end ──────────────────────────────────────────────────────────────────────────────────────────

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._queue.limits.lease_ms / 3000)
            held = [(entry.lease.ref, entry.lease.token) for entry in self.held.values()]
            if not held:
                continue
            asked_at = time.monotonic()
            try:
                verdicts = await self._queue.renew(self.model, held)
            except Unavailable:
                continue
            self._renewed_at = asked_at
            for (_, token), verdict in zip(held, verdicts, strict=True):
                if verdict is not Verdict.OK:
                    self.refused(token, verdict)

    def refused(self, lease: str, verdict: Verdict) -> None:
        if (held := self.held.get(lease)) is not None:
            log.info("job.dropped", **about(held.lease.ref, held.lease.trace), verdict=verdict.value)
            self._metrics.dropped(verdict)
            if verdict is Verdict.UNWANTED or (verdict is Verdict.LOST and not self._may_have_lapsed(held)):
                self._ledger.cancelled(lease)
            self.drop(lease, verdict.value)

    def _may_have_lapsed(self, held: Held) -> bool:
        """A lease that was lost before it can have lapsed is that of a job that the queue has ended."""
        return time.monotonic() - max(held.taken_at, self._renewed_at) > self._queue.limits.lease_ms / 2000

    def drop(self, lease: str, how: str) -> None:
        """Lets go of a job that others may go on with; `how`, as telling.py has it."""
        if (held := self.held.pop(lease, None)) is None:
            return
        trace_lease(held, self._worker_id, how)
        self._ledger.dropped(lease)
        self.emitter.forget(lease)
        self._engine.abort(lease)
        self._wake()
        self._freed.set()

    def ended(self, lease: str) -> None:
        self._ledger.ended(lease)
        self.held.pop(lease, None)
        self._freed.set()
