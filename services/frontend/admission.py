"""From a valid request to a job in the queue: submitted, or found there under its name."""

from dataclasses import dataclass

from millrace.errors import AlreadyExists, DataLoss, MillraceError, NotFound
from millrace.queue import JobQueue, JobRecord, JobRef, ModelEntry, Result, Submission
from millrace.queue import history as running
from services.frontend.metrics import Metrics
from services.frontend.models import Models
from services.frontend.parse import Asked, Position
from services.frontend.readiness import Readiness

SEALS = 64
"""More entries than a log can hold between two results."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a request's job belongs, or is."""

    ref: JobRef
    entry: ModelEntry | None = None
    """The model that will run it; None where the job is there already."""


class Admission:
    """Raises Unavailable, in bounded time, where Redis is away."""

    def __init__(
        self, queue: JobQueue, models: Models, readiness: Readiness, metrics: Metrics, *, queue_without_workers: bool
    ) -> None:
        self._queue, self._models, self._readiness, self._metrics = queue, models, readiness, metrics
        self._queue_without_workers = queue_without_workers

    async def resolve(self, tenant: str, job_id: str, request: Asked) -> Target:
        """The model that will run the job; or the job itself, where the request only attaches, or where the model takes
        no new jobs."""
        self._readiness.require()
        if request.options.position.offset:
            return Target(ref=await self.attach(tenant, job_id, request.fingerprint))
        try:
            entry = await self._models.resolve(
                request.model, request.model_version, without_workers=self._queue_without_workers
            )
        except MillraceError as error:
            if not request.options.job_id or error.reason == "QUEUE_AWAY":
                raise
            try:
                return Target(ref=await self.attach(tenant, job_id, request.fingerprint))
            except NotFound:
                raise error from None
        return Target(ref=JobRef(entry.model, tenant, job_id), entry=entry)

    async def submit(
        self,
        target: Target,
        request: Asked,
        *,
        timeout_ms: int,
        retained: bool,
        watcher: str = "",
        wanted_to_deadline: bool = False,
    ) -> JobRef:
        """Checks the request against its model and queues the job, or finds it."""
        if target.entry is None:
            return target.ref
        valid = request.against(target.entry)
        submission = Submission(
            ref=target.ref,
            fingerprint=valid.fingerprint,
            payload=valid.payload,
            task=valid.task,
            cost=valid.cost,
            priority=request.options.priority,
            timeout_ms=timeout_ms,
            resume_window_ms=request.options.resume_window_ms,
            wanted_to_deadline=wanted_to_deadline,
            retained=retained,
            watcher=watcher,
        )
        ref = await self._queue.submit(submission)
        self._metrics.submitted.inc()
        return ref

    async def attach(self, tenant: str, job_id: str, fingerprint: str) -> JobRef:
        """The job that this request started.

        Raises:
            NotFound: it is not known any more.
            AlreadyExists: the name belongs to another request.
        """
        record = await self.find(tenant, job_id)
        if record.fingerprint != fingerprint:
            raise AlreadyExists(f"job {job_id} is another request", reason="JOB_ID_REUSED")
        return record.ref

    async def find(self, tenant: str, job_id: str) -> JobRecord:
        """Raises NotFound."""
        self._readiness.require()
        record = await self._queue.locate(tenant, job_id)
        if record is None:
            raise job_unknown(job_id)
        return record

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


def job_unknown(job_id: str) -> NotFound:
    return NotFound(f"there is no job {job_id}", reason="JOB_UNKNOWN")
