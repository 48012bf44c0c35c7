"""The one event of each job's life: told by the worker that has written its end."""

import structlog

from services.worker.results import Ended

log = structlog.get_logger()


def tell(ended: Ended) -> None:
    lease, ending, timing = ended.lease, ended.ending, ended.timing
    log.info(
        "job.ended",
        job_id=lease.ref.job_id,
        tenant=lease.ref.tenant,
        model=str(lease.ref.model),
        task=lease.task,
        code=ending.code.name,
        reason=ending.reason,
        queued_ms=timing.queued.ToMilliseconds(),
    )
