"""The checker's word on what clients received of a fleet."""

from collections.abc import Sequence

from millrace.queue import JobRef, ModelVersion
from services.worker.stub import stub_token
from tests.checker.check import check
from tests.checker.history import Difference, JobHistory, Received
from tests.survival.fleet import Fleet, Transcript, queue_of


async def differences(
    running: Fleet, model: str, seen: Sequence[Transcript], *, stub: bool = False
) -> list[Difference]:
    """Each transcript against the log in Redis; with the stub's truth where it made them."""
    histories = []
    async with queue_of(running) as queue:
        for transcript in seen:
            ref = JobRef(ModelVersion(model, "1"), "default", transcript.job_id)
            arrivals = zip(transcript.messages, transcript.arrivals, strict=True)
            received = [Received(message=message, at=at) for message, at in arrivals]
            log = await queue.read(ref, 0, 1_000_000)
            histories.append(JobHistory(job=ref.job, received=received, code=transcript.code, log=log))
    return check(histories, truth=stub_token if stub else None)
