"""From a lease to the work that it is for: the job's request, and the results that its log holds already."""

import asyncio

import structlog

from millrace.engine import Work
from millrace.errors import Unavailable
from millrace.queue import End, JobQueue, Lease, Result, Seal
from millrace.telemetry import about

RETRY_S = 0.1
LOG_PAGE = 256
log = structlog.get_logger()


async def load(queue: JobQueue, lease: Lease) -> Work | None:
    """None where the job has ended meanwhile, or Redis has lost a part of it."""
    while True:
        try:
            request = lease.payload or await queue.payload(lease.ref, lease.fingerprint)
            results = await _read_log(queue, lease)
        except Unavailable as error:
            log.debug("load.waiting", model=str(lease.ref.model), error=error.message)
            await asyncio.sleep(RETRY_S)
            continue
        if request is None or len(results) != lease.last_offset:
            told = about(lease.ref, lease.trace)
            log.warning("job.incomplete", **told, results=len(results), last=lease.last_offset)
            return None
        return Work(
            lease=lease.token,
            job=lease.ref.job,
            request=request,
            task=lease.task,
            results=results,
            submitted_at=lease.submit_ms / 1000,
            epoch=lease.epoch,
        )


async def _read_log(queue: JobQueue, lease: Lease) -> list[bytes]:
    """Page by page: between two results there may be any number of seals."""
    results: list[bytes] = []
    offset = epoch = 0
    while len(results) < lease.last_offset:
        entries = await queue.read(lease.ref, offset, LOG_PAGE, epoch=epoch)
        results += [entry.body for entry in entries if isinstance(entry, Result) and entry.body is not None]
        match entries[-1] if entries else None:
            case Result(offset=offset):
                epoch = 0
            case Seal(last_offset=offset, epoch=epoch):
                pass
            case End() | None:
                break
    return results
