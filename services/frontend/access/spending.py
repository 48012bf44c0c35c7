"""What tenants with quotas spend: asked for once for each job, just before it is queued.

A request that finds its job in the queue spends nothing, nor does one that is refused afterwards.
"""

from contextlib import suppress

from millrace.errors import AlreadyExists, MillraceError, Unavailable
from millrace.queue import JobQueue, JobRef, Quota, Quotas, Submission
from services.frontend.access.caller import Caller


class Spending:
    """Raises Unavailable where Redis is away."""

    def __init__(self, queue: JobQueue, quotas: Quotas) -> None:
        self._queue, self._quotas = queue, quotas

    async def submit(self, caller: Caller, submission: Submission) -> JobRef:
        """As `JobQueue.submit`, where the tenant's quotas leave room for it.

        Raises:
            AlreadyExists: the name belongs to another request.
            Exhausted: a quota, or a bound of the queue, is reached.
        """
        quota = caller.policy.quota
        if quota is None:
            return await self._queue.submit(submission)
        return await self._find(submission) or await self._submit(submission, quota)

    async def settle(self, caller: Caller, ref: JobRef) -> None:
        """A job has ended. Where that cannot be noted, its place is found later."""
        if caller.policy.quota is not None:
            with suppress(Unavailable):
                await self._quotas.settle(ref)

    async def _find(self, submission: Submission) -> JobRef | None:
        """The job where it is there already."""
        ref = submission.ref
        if ref.is_anonymous or (record := await self._queue.locate(ref.tenant, ref.job_id)) is None:
            return None
        if record.fingerprint != submission.fingerprint:
            raise AlreadyExists(f"job {ref.job_id} is another request", reason="JOB_ID_REUSED")
        return record.ref

    async def _submit(self, submission: Submission, quota: Quota) -> JobRef:
        ref = submission.ref
        receipt = await self._quotas.take(ref, quota, cost=submission.cost, timeout_ms=submission.timeout_ms)
        try:
            return await self._queue.submit(submission)
        except MillraceError:
            with suppress(Unavailable):
                await self._quotas.undo(ref, receipt)
            raise
