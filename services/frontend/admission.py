"""From a valid request to a job in the queue: submitted, or found there under its name."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from millrace.errors import AlreadyExists, DataLoss, MillraceError, NotFound, Unavailable
from millrace.queue import JobQueue, JobRef, Result, Submission
from millrace.queue import history as running
from services.frontend.metrics import Metrics
from services.frontend.models import Models
from services.frontend.parse import Position, ValidGenerate
from services.frontend.readiness import Readiness

T = TypeVar("T")
ADMIT_S = 5.0
SEALS = 64
"""More entries than a log can hold between two results."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a request's job belongs, or is."""

    ref: JobRef
    exists: bool = False
    context_length: int = 0
    """Of the model; 0 where it is not known."""


class Admission:
    """Raises Unavailable, in bounded time, where Redis is away."""

    def __init__(
        self, queue: JobQueue, models: Models, readiness: Readiness, metrics: Metrics, *, queue_without_workers: bool
    ) -> None:
        self._queue, self._models, self._readiness, self._metrics = queue, models, readiness, metrics
        self._queue_without_workers = queue_without_workers

    async def resolve(self, tenant: str, job_id: str, request: ValidGenerate) -> Target:
        """The model that will run the job; or the job itself, where the request only attaches, or where the model takes
        no new jobs."""
        self._readiness.require()
        if request.options.position.offset:
            return Target(ref=await self.attach(tenant, job_id, request.fingerprint), exists=True)
        try:
            entry = await self._models.resolve(
                request.model, request.model_version, without_workers=self._queue_without_workers
            )
        except MillraceError as error:
            if not request.options.job_id or error.reason == "QUEUE_AWAY":
                raise
            try:
                return Target(ref=await self.attach(tenant, job_id, request.fingerprint), exists=True)
            except NotFound:
                raise error from None
        return Target(ref=JobRef(entry.model, tenant, job_id), context_length=entry.context_length)

    async def submit(
        self,
        target: Target,
        request: ValidGenerate,
        *,
        timeout_ms: int,
        retained: bool,
        watcher: str = "",
        wanted_to_deadline: bool = False,
    ) -> JobRef:
        """Queues the job, or finds it. Once begun, this is carried through even where the call is cancelled."""
        if target.exists:
            return target.ref
        submission = Submission(
            ref=target.ref,
            fingerprint=request.fingerprint,
            payload=request.payload,
            cost=min(request.cost, target.context_length or request.cost),
            priority=request.options.priority,
            timeout_ms=timeout_ms,
            resume_window_ms=request.options.resume_window_ms,
            wanted_to_deadline=wanted_to_deadline,
            retained=retained,
            watcher=watcher,
        )
        ref = await _carry_through(self._queue.submit(submission))
        self._metrics.submitted.inc()
        return ref

    async def attach(self, tenant: str, job_id: str, fingerprint: str) -> JobRef:
        """The job that this request started.

        Raises:
            NotFound: it is not known any more.
            AlreadyExists: the name belongs to another request.
        """
        found = await self._locate(tenant, job_id)
        if found is None:
            raise job_unknown(job_id)
        ref, known = found
        if known != fingerprint:
            raise AlreadyExists(f"job {job_id} is another request", reason="JOB_ID_REUSED")
        return ref

    async def find(self, tenant: str, job_id: str) -> JobRef:
        """Raises NotFound."""
        found = await self._locate(tenant, job_id)
        if found is None:
            raise job_unknown(job_id)
        return found[0]

    async def history_at(self, ref: JobRef, position: Position) -> bytes:
        """The running hash of the results up to there. Raises DataLoss where they are not what the caller saw."""
        if position.offset == 0:
            return running.EMPTY
        entries = await self._queue.read(ref, position.offset - 1, SEALS)
        at = (entry for entry in entries if isinstance(entry, Result) and entry.offset == position.offset)
        result = next(at, None)
        if result is None:
            raise DataLoss(f"the log does not reach offset {position.offset}", reason="RESULTS_LOST")
        if position.history not in (b"", result.history):
            raise DataLoss("the results in the log are not those that were sent", reason="HISTORY_DIFFERS")
        return result.history

    async def _locate(self, tenant: str, job_id: str) -> tuple[JobRef, str] | None:
        self._readiness.require()
        return await self._queue.locate(tenant, job_id)


def job_unknown(job_id: str) -> NotFound:
    return NotFound(f"there is no job {job_id}", reason="JOB_UNKNOWN")


async def _carry_through(work: Coroutine[Any, Any, T]) -> T:
    """Does the work to its end, even where the caller is cancelled meanwhile; the cancellation goes on behind it."""
    task = asyncio.create_task(asyncio.wait_for(work, ADMIT_S))
    try:
        return await asyncio.shield(task)
    except TimeoutError:
        raise Unavailable("the queue does not answer in time", reason="QUEUE_AWAY") from None
    except asyncio.CancelledError:
        await asyncio.wait([task])
        task.cancelled() or task.exception()
        raise
