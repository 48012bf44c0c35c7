"""Writes what the engine's steps add to the results logs: one emit in flight; later steps merge meanwhile."""

import asyncio
from typing import Protocol

import structlog

from millrace.engine import Output
from millrace.errors import Unavailable
from millrace.queue import Emission, JobQueue, JobRef, ModelVersion, Verdict
from millrace.v1.job_pb2 import Timing
from services.worker.metrics import ModelMetrics
from services.worker.results import Held, emissions, merge
from services.worker.telling import tell, trace_lease

MERGED_STEPS = 64
"""Steps that may merge behind an unanswered emit before the engine pauses."""
RETRY_S = 0.1
log = structlog.get_logger()


class Jobs(Protocol):
    """The jobs that an emitter writes for."""

    held: dict[str, Held]
    """By lease token."""

    def refused(self, lease: str, verdict: Verdict) -> None:
        """The queue does not take the job's results: let it go."""

    def ended(self, lease: str) -> None:
        """The job's end is in its log."""


class Emitter:
    """For one model of one worker."""

    def __init__(self, queue: JobQueue, model: ModelVersion, worker_id: str, jobs: Jobs, metrics: ModelMetrics) -> None:
        self._queue, self._model, self._worker_id, self._jobs = queue, model, worker_id, jobs
        self._metrics = metrics
        self._pending: dict[str, list[Output]] = {}
        self._steps = 0
        self._awaited: list[asyncio.Future[None]] = []
        """Who waits for what was put so far."""
        self._news = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._room = asyncio.Event()
        self._room.set()

    @property
    def has_room(self) -> bool:
        """False while too many steps are unwritten, and the engine should pause."""
        return self._room.is_set()

    async def room(self) -> None:
        await self._room.wait()

    def put(self, outputs: list[Output]) -> None:
        """Takes one step's outputs."""
        if not outputs:
            return
        for output in outputs:
            self._add(output)
        self._steps += 1
        if self._steps >= MERGED_STEPS:
            self._room.clear()
        self._idle.clear()
        self._news.set()

    async def written(self) -> None:
        """Returns when what was put so far is written, or is not wanted any more."""
        if not self._idle.is_set():
            written = asyncio.get_running_loop().create_future()
            self._awaited.append(written)
            self._news.set()
            await written

    async def flushed(self) -> None:
        """Returns when everything that was put is written, or is not wanted any more."""
        await self._idle.wait()

    def forget(self, lease: str) -> None:
        self._pending.pop(lease, None)

    async def run(self) -> None:
        """Writes until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            pending, self._pending, self._steps = self._pending, {}, 0
            awaited, self._awaited = self._awaited, []
            self._room.set()
            batch = [
                emission
                for lease, outputs in pending.items()
                if (held := self._jobs.held.get(lease)) is not None
                for emission in emissions(held, outputs, self._worker_id)
            ]
            if batch:
                await self._apply(batch, await self._write(batch))
            for written in awaited:
                if not written.done():
                    written.set_result(None)
            if not self._pending:
                self._idle.set()

    def _add(self, output: Output) -> None:
        outputs = self._pending.setdefault(output.lease, [])
        latest = outputs[-1] if outputs else None
        if latest is None or not _fold(latest, output):
            outputs.append(output)

    async def _write(self, batch: list[Emission]) -> list[Verdict]:
        """Repeats until it is answered: an emission that is in the log already counts as written."""
        while True:
            try:
                return await self._queue.emit(self._model, batch)
            except Unavailable as error:
                log.debug("emit.waiting", model=str(self._model), error=error.message)
                await asyncio.sleep(RETRY_S)

    async def _apply(self, batch: list[Emission], verdicts: list[Verdict]) -> None:
        shortened = []
        for emission, verdict in zip(batch, verdicts, strict=True):
            held = self._jobs.held.get(emission.token)
            if held is None:
                continue
            if verdict not in (Verdict.OK, Verdict.DUPLICATE):
                self._jobs.refused(emission.token, verdict)
                if verdict is Verdict.GAP:
                    shortened.append((emission.ref, emission.token, held.cost))
                continue
            if emission.offset:
                self._metrics.results.inc()
            if emission.ending is not None:
                ended = held.ended(emission.ending, Timing.FromString(emission.timing))
                self._metrics.ended(ended)
                tell(ended)
                trace_lease(held, self._worker_id, "ended", ended.ending)
                self._jobs.ended(emission.token)
        if shortened:
            await self._hand_back(shortened)

    async def _hand_back(self, jobs: list[tuple[JobRef, str, int]]) -> None:
        """Redis has lost results of these jobs: whoever takes them next reads their logs anew."""
        try:
            await self._queue.release(self._model, jobs)
        except Unavailable as error:
            log.warning("jobs.left_to_lapse", model=str(self._model), error=error.message)


def _fold(earlier: Output, later: Output) -> bool:
    if later.result is not None and earlier.result is not None and not merge(earlier.result, later.result):
        return False
    earlier.result = earlier.result if earlier.result is not None else later.result
    earlier.last, earlier.failure, earlier.cost = later.last, later.failure, later.cost
    return True
