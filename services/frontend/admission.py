"""From a valid request to a job in the queue: submitted, or found there under its name."""

from collections.abc import Mapping
from dataclasses import dataclass

from millrace import tracing
from millrace.errors import AlreadyExists, DataLoss, Exhausted, MillraceError, NotFound, Unavailable
from millrace.queue import Durability, JobQueue, JobRecord, JobRef, ModelEntry, Priority, Result, Submission
from millrace.queue import history as running
from services.frontend.access.caller import Caller
from services.frontend.access.spending import Spending
from services.frontend.memory import Memory
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
    caller: Caller
    entry: ModelEntry | None = None
    """The model that will run it; None where the job is there already."""
    priority: Priority = Priority.STANDARD
    """With which it will be queued."""


class Admission:
    """Raises Unavailable, in bounded time, where Redis is away.

    `weights` are the tenants' shares, 1 where nothing is said. For `scale_from_zero_s` jobs wait for the first worker
    of a model that has none.
    """

    def __init__(
        self,
        queue: JobQueue,
        models: Models,
        readiness: Readiness,
        memory: Memory,
        durability: Durability,
        metrics: Metrics,
        spending: Spending,
        *,
        weights: Mapping[str, float],
        scale_from_zero_s: float,
    ) -> None:
        self._queue, self._models, self._readiness = queue, models, readiness
        self._memory, self._durability, self._metrics = memory, durability, metrics
        self._weights, self._scale_from_zero_s = weights, scale_from_zero_s
        self.spending = spending

    async def resolve(self, caller: Caller, job_id: str, request: Asked) -> Target:
        """The model that will run the job; or the job itself, where the request only attaches, or where the model takes
        no new jobs. Raises Denied where the caller may not use the model, or not with this priority."""
        tenant = caller.tenant
        caller.policy.require_model(request.model)
        priority = caller.policy.grant(request.options.priority)
        self._readiness.require()
        if request.options.position.offset:
            return Target(ref=await self.attach(tenant, job_id, request.fingerprint), caller=caller)
        try:
            entry = await self._models.resolve(
                request.model, request.model_version, without_workers=self._scale_from_zero_s > 0
            )
        except MillraceError as error:
            return Target(ref=await self._find_instead(error, tenant, job_id, request), caller=caller)
        return Target(ref=JobRef(entry.model, tenant, job_id), caller=caller, entry=entry, priority=priority)

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
        """Checks the request against its model and queues the job, or finds it.

        Raises:
            Exhausted: a bound is reached, or the job could not make its deadline.
            InvalidRequest: the request is too large for its tenant, or does not fit the model.
            Unavailable: no worker has come in time, or the job is not kept.
        """
        if target.entry is None:
            return target.ref
        valid = request.against(target.entry)
        target.caller.policy.require_size(len(valid.payload))
        try:
            self._memory.admit(target.priority, len(valid.payload))
        except Exhausted as error:
            return await self._find_instead(error, target.ref.tenant, target.ref.job_id, request)
        submission = Submission(
            ref=target.ref,
            fingerprint=valid.fingerprint,
            payload=valid.payload,
            task=valid.task,
            cost=valid.cost,
            priority=target.priority,
            weight=self._weight_of(target.caller),
            timeout_ms=timeout_ms,
            resume_window_ms=request.options.resume_window_ms,
            wanted_to_deadline=wanted_to_deadline,
            retained=retained,
            watcher=watcher,
            trace=tracing.current().traceparent,
            worker_within_ms=None if self._models.is_served(target.entry) else round(1000 * self._scale_from_zero_s),
        )
        ref = await self.spending.submit(target.caller, submission)
        if not await self._durability.holds(ref):
            raise Unavailable("the queue has lost the job", reason="JOB_LOST")
        self._metrics.submitted.inc()
        return ref

    def _weight_of(self, caller: Caller) -> float:
        own = caller.policy.weight
        return self._weights.get(caller.tenant, 1.0) if own is None else own

    async def _find_instead(self, error: MillraceError, tenant: str, job_id: str, request: Asked) -> JobRef:
        """The job that the request has started before, though it could not start one now. Raises `error` where there is
        none."""
        if not request.options.job_id or error.reason == "QUEUE_AWAY":
            raise error
        try:
            return await self.attach(tenant, job_id, request.fingerprint)
        except NotFound:
            raise error from None

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
